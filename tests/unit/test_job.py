"""What identifies a job: its input and the options that change bytes, on any machine, for ever."""

import pytest

from atdata_cli.errors import UsageError
from atdata_cli.shards.job import Job, WriteOptions
from atdata_cli.sources.base import InputFile

INPUTS = [InputFile("cat/01.jpg", "/data/cat/01.jpg", 37), InputFile("-", "-", None)]


def test_the_identity_of_a_job_never_changes():
    # Datasets in stores carry these: if one changes, every finished dataset is taken for another.
    assert Job.of([], WriteOptions()).id == "1f03a90fbcd6d501afa9c7f846a01a870b4b9cae5ab10a07412a7488c964f0d8"
    options = WriteOptions(
        name="photos", fields=("jpg", "json"), max_count=100, split="train=0.9,val=0.1", reading={"null": "NA"}
    )
    assert Job.of(INPUTS, options).id == "db414bdf030a7b84401c40ac9d7a017530658066c2d2ef71063bae47bbd683b2"


def test_places_do_not_count():
    moved = [InputFile(item.name, "s3://bucket/" + item.name, item.size) for item in INPUTS]
    assert Job.of(INPUTS, WriteOptions()) == Job.of(moved, WriteOptions())


@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS[::-1],
        INPUTS[:1],
        [InputFile("cat/01.jpg", "", 38), INPUTS[1]],
        [InputFile("cat/02.jpg", "", 37), INPUTS[1]],
        [InputFile("cat/01.jpg", "", 37), InputFile("-", "-", 0)],
        # Names hold anything: none can look like the end of one and the beginning of the next.
        [InputFile('cat/01.jpg",37],["-', "", None)],
    ],
)
def test_names_sizes_and_order_count(inputs):
    assert Job.of(inputs, WriteOptions()).id != Job.of(INPUTS, WriteOptions()).id


def test_names_that_are_not_utf8_are_identified():
    names = ["a\udcff.jpg", "a\udcfe.jpg", "ä.jpg"]
    assert len({Job.of([InputFile(name, name, 1)], WriteOptions()).id for name in names}) == 3


@pytest.mark.parametrize(
    "same",
    [
        {"on_error": "skip"},
        {"max_errors": 5},
        {"min_samples": 5},
        {"allow_empty": True},
        {"embed_root": "/data"},
        {"max_count": 10_000},
        {"max_size": 1 << 30},
    ],
)
def test_options_that_change_no_byte_do_not_count(same):
    assert Job.of(INPUTS, WriteOptions(**same)).id == Job.of(INPUTS, WriteOptions()).id


@pytest.mark.parametrize(
    "other",
    [
        {"name": "x"},
        {"encoding": "msgpack"},
        {"key": "id"},
        {"fields": ("a",)},
        {"embed": ("a",)},
        {"schema": {"properties": {"a": {}}}},
        {"max_count": 1},
        {"max_size": 1 << 20},
        {"shards": 2},
        {"shards_multiple_of": 2},
        {"split": "a=0.5,b=0.5"},
        {"split_from": "a"},
        {"compress": "gz"},
        {"reading": {"no_infer": True}},
    ],
)
def test_options_that_change_bytes_count_and_are_named(other):
    job = Job.of(INPUTS, WriteOptions(**other))
    assert job.id != Job.of(INPUTS, WriteOptions()).id
    assert set(job.options) == set(other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"max_count": 0}, "--max-count"),
        ({"max_size": -5}, "--max-size"),
        ({"max_size": 10_239}, "empty tar"),
        ({"shards": 0}, "--shards"),
        ({"shards_multiple_of": -1}, "--shards-multiple-of"),
        ({"shards": 2, "max_count": 5}, "evenly"),
        ({"shards_multiple_of": 2, "max_size": 1 << 20}, "evenly"),
        ({"split": "manifest.json=0.5,b=0.5"}, "manifest.json"),
        ({"split": "shard-000000.tar=0.5,b=0.5"}, "shard-"),
        ({"split": "../a=0.5,b=0.5"}, "../a"),
        ({"split": "a=nan,b=0.5"}, "share"),
        ({"split": "a=0.5,a=0.5"}, "different names"),
        ({"split_by": "a"}, "--split"),
        ({"split_from": "a", "split": "a=0.5,b=0.5"}, "--split-from"),
    ],
)
def test_options_that_mean_nothing(options, words):
    with pytest.raises(UsageError) as told:
        WriteOptions(**options).check()
    assert words in told.value.message + (told.value.hint or "")
