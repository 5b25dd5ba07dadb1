"""Datasets that Python code holds."""

import pytest

from atdata_cli.errors import DataError, UsageError
from atdata_cli.sources.base import RowSource, SampleSource
from atdata_cli.sources.mappings import as_source


class Packed:
    """What ``atdata.Dataset.ordered`` yields, as far as it matters: a new key at every call."""

    made = 0

    def __init__(self, number):
        self.number = number

    @property
    def as_wds(self):
        Packed.made += 1
        return {"__key__": f"random-{Packed.made}", "msgpack": bytes([self.number])}


class Dataset:
    def ordered(self, batch_size=1):
        assert batch_size is None
        return map(Packed, range(3))


def samples(source):
    return [(sample.key, dict(sample.fields)) for sample in source.samples()]


def rows(source):
    return [row for batch in source.batches() for row in batch.rows]


def test_a_source_is_itself():
    source = as_source([{"a": 1}])
    assert as_source(source) is source


def test_mappings_of_values_are_rows():
    source = as_source([{"a": 1}, {"__key__": "k", "b": "x"}])
    assert isinstance(source, RowSource)
    assert source.rewindable
    assert rows(source) == rows(source) == [{"a": 1}, {"__key__": "k", "b": "x"}]
    assert source.count() is None


def test_mappings_of_bytes_are_samples():
    source = as_source([{"__key__": "a", "jpg": b"1", "cls": bytearray(b"2")}, {"jpg": memoryview(b"3")}])
    assert isinstance(source, SampleSource)
    assert samples(source) == [("a", {"jpg": b"1", "cls": b"2"}), ("0000000001", {"jpg": b"3"})]
    assert source.rejects == []


@pytest.mark.parametrize("dataset", [Dataset(), [Packed(0), Packed(1), Packed(2)]])
def test_typed_samples_get_keys_that_stay(dataset):
    source = as_source(dataset)
    expected = [(f"{number:010d}", {"msgpack": bytes([number])}) for number in range(3)]
    assert samples(source) == samples(source) == expected


def test_an_iterator_is_read_once_and_says_so():
    source = as_source(iter([{"a": 1}, {"a": 2}]))
    assert not source.rewindable
    assert rows(source) == [{"a": 1}, {"a": 2}]
    with pytest.raises(UsageError, match="once"):
        rows(source)
    typed = as_source(Packed(number) for number in range(2))
    assert [fields for _, fields in samples(typed)] == [{"msgpack": b"\0"}, {"msgpack": b"\1"}]


def test_many_rows_keep_their_numbers():
    source = as_source({"a": number} for number in range(2500))
    batches = list(source.batches())
    assert sum(batch.records for batch in batches) == 2500
    assert [line for batch in batches for line in batch.lines] == list(range(1, 2501))
    assert all(list(batch.offsets) == list(range(len(batch.rows))) for batch in batches)


@pytest.mark.parametrize("nothing", [None, 5, "text", b"bytes", {"a": 1}, object()])
def test_what_is_no_dataset(nothing):
    with pytest.raises(DataError, match=type(nothing).__name__):
        as_source(nothing)


def test_an_empty_dataset_has_no_samples():
    assert rows(as_source([])) == []


def test_rows_that_are_none_are_rejected():
    source = as_source([{"a": 1}, 5, {1: 2}, {"a": 2}])
    batch = next(source.batches())
    assert (batch.rows, list(batch.lines), list(batch.offsets)) == ([{"a": 1}, {"a": 2}], [1, 4], [0, 3])
    assert [reject.where for reject in batch.rejects] == ["sample 2", "sample 3"]


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"__key__": "a", "jpg": b"again"}, "duplicate key 'a', first at sample 1"),
        ({"__key__": "a.b", "jpg": b""}, "dot"),
        ({"__key__": "../a", "jpg": b""}, "'..'"),
        ({"__key__": "", "jpg": b""}, "empty"),
        ({"__key__": 5, "jpg": b""}, "__key__ is int"),
        ({"__key__": None, "jpg": b""}, "__key__ is NoneType"),
        ({"__key__": "b", "a/b": b""}, "slash"),
        ({"__key__": "b", "jpg": 5}, "'jpg' is int"),
        ({"__key__": "b", "jpg": [1, 2]}, "'jpg' is list"),
        ({"__key__": "b", "jpg": "text"}, "'jpg' is str"),
        ({"__key__": "b", 5: b""}, "name is not text"),
        (5, "mapping"),
    ],
)
def test_samples_that_cannot_be_written_are_rejected(sample, words):
    source = as_source([{"__key__": "a", "jpg": b"1"}, sample, {"__key__": "z", "jpg": b"2"}])
    assert [key for key, _ in samples(source)] == ["a", "z"]
    (reject,) = source.rejects
    assert reject.where == "sample 2"
    assert words in reject.reason


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": {1: 2}}, [{1: 2}], {"a": [{1: 2}]}, [[[[[[{1: 2}]]]]]], {"a": {"b": ({None: 1},)}}]
)
def test_maps_with_keys_that_are_no_text_are_rejected_at_any_depth(value):
    batch = next(as_source([{"a": {"b": [1, {"c": 2}]}}, {"a": value}]).batches())
    assert batch.rows == [{"a": {"b": [1, {"c": 2}]}}]
    assert "keys" in batch.rejects[0].reason


def test_rows_from_memory_name_no_files():
    assert as_source([{"a": 1}]).files.info("x") is None
