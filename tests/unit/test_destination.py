"""What a prefix holds, and that nothing of anybody else's is ever touched."""

import json
from pathlib import Path

import pytest

from atdata_cli.errors import IntegrityError, OccupiedError, TemporaryError
from atdata_cli.shards.destination import Destination, Held
from atdata_cli.shards.job import Job, WriteOptions
from atdata_cli.shards.manifest import Manifest, ShardRow
from atdata_cli.shards.write import write
from atdata_cli.sources.mappings import as_source
from atdata_cli.stores.local import LocalStore

JOB = Job.of([], WriteOptions(name="mine"))
OTHER = Job.of([], WriteOptions(name="other", max_count=5))


@pytest.fixture(params=["out", "deep/out"])
def there(request, tmp_path):
    return Destination(LocalStore(tmp_path), request.param)


def folder(destination) -> Path:
    return Path(destination.store.root) / destination.prefix


def put(destination, name, data=b"x"):
    path = folder(destination) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def names(destination):
    return sorted(
        str(path.relative_to(folder(destination))) for path in folder(destination).rglob("*") if path.is_file()
    )


def manifest(job, split=None, shards=()):
    return Manifest(
        name="x",
        samples=0,
        bytes=0,
        payload=0,
        encoding="files",
        job=job.id,
        split=split,
        shards=shards,
        options=job.options,
    ).dumps()


def mark(job):
    return json.dumps({"job": job.id}).encode()


def test_nothing(there):
    assert there.survey(JOB).kind == "nothing"
    put(there, "README.md")
    assert there.survey(JOB).kind == "nothing"


def test_its_own_job_finished_and_unfinished(there):
    put(there, ".atdata/job.json", mark(JOB))
    assert there.survey(JOB).kind == "unfinished"
    put(there, "manifest.json", manifest(JOB))
    held = there.survey(JOB)
    assert (held.kind, held.text) == ("finished", manifest(JOB))


def test_another_jobs_dataset_can_be_updated(there):
    put(there, "manifest.json", manifest(OTHER))
    held = there.survey(JOB)
    assert (held.kind, held.differs) == (
        "other",
        '--max-count 5 there, default here, --name "other" there, "mine" here',
    )
    assert there.begin(JOB, held)
    assert there.survey(JOB).kind == "unfinished"
    with pytest.raises(OccupiedError, match="another job's unfinished"):
        there.survey(Job.of([], WriteOptions(name="third")))
    # A run of the old job has nothing to do, whatever is going on.
    assert there.survey(OTHER).kind == "finished"


@pytest.mark.parametrize(
    ("size", "shown"),
    [(512 << 20, "512M"), (1 << 40, "1T"), (1536 << 20, "1536M"), (10**9, "1GB"), (1500, "1500"), (1000001, "1000001")],
)
def test_sizes_that_differ_are_told_as_they_are_typed(there, size, shown):
    put(there, "manifest.json", manifest(Job.of([], WriteOptions(name="mine", max_size=size))))
    assert f"--max-size {shown} there, default here" in there.survey(JOB).differs


@pytest.mark.parametrize(
    ("name", "data", "error", "words"),
    [
        ("manifest.json", b"{}", IntegrityError, "no dataset manifest"),
        (".atdata/job.json", mark(OTHER), OccupiedError, "another job's unfinished"),
        (".atdata/job.json", b"", OccupiedError, "unfinished"),
        (".atdata/job.json", b"[" * 100_000, OccupiedError, "unfinished"),
        (".atdata/job.json", b'{"job": 5}', OccupiedError, "unfinished"),
        (".atdata/job.json", b"\xff", OccupiedError, "unfinished"),
        ("shard-000000.tar", b"", OccupiedError, "without a manifest"),
        ("shard-000007-0a1b2c3d.tar", b"", OccupiedError, "without a manifest"),
        ("shard-1234567.tar.gz", b"", OccupiedError, "without a manifest"),
        ("train/shard-000000.tar", b"", OccupiedError, "a folder in it"),
        ("a/b/c/shard-000000.tar", b"", OccupiedError, "a folder in it"),
    ],
)
def test_anything_else_is_refused_and_stays(there, name, data, error, words):
    put(there, name, data)
    with pytest.raises(error) as told:
        there.survey(JOB)
    assert words in told.value.message
    assert names(there) == [name]


def test_runs_of_one_job_begin_together_and_others_wait(there):
    nothing = there.survey(JOB)
    assert there.begin(JOB, nothing)
    assert there.begin(JOB, nothing)
    with pytest.raises(OccupiedError, match="another job's unfinished dataset: --max-count default there, 5 here"):
        there.begin(OTHER, nothing)
    there.release()
    assert names(there) == []
    assert there.begin(OTHER, nothing)
    with pytest.raises(TemporaryError, match="another run is writing here"):
        there.begin(OTHER, nothing, run="another")


@pytest.mark.parametrize(("finished", "error"), [(OTHER, OccupiedError), (JOB, TemporaryError)])
def test_a_run_that_finished_since_the_survey_keeps_others_from_beginning(there, finished, error):
    nothing = there.survey(JOB)
    put(there, "manifest.json", manifest(finished))
    with pytest.raises(error, match="another run"):
        there.begin(JOB, nothing)
    assert names(there) == ["manifest.json"]


def test_clearing_removes_what_the_job_wrote_and_nothing_else(there):
    ours = ["shard-000000.tar", "shard-000001.tar", "train/shard-000000.tar", "val/shard-000000.tar"]
    for name in ours:
        put(there, name)
    put(there, ".atdata/job.json", mark(JOB))
    put(there, "train/manifest.json", manifest(JOB, "train"))
    others = {
        "README.md": b"x",
        "notes/shard-list.txt": b"x",
        "shard-1.tar": b"x",
        "a/b/shard-000000.tar": b"x",
        "finished/manifest.json": manifest(OTHER),
        "finished/shard-000000.tar": b"x",
        "unfinished/.atdata/job.json": mark(OTHER),
        "unfinished/shard-000000.tar": b"x",
        "copied/manifest.json": manifest(JOB, "train"),  # the same job, but no split of this name
        "copied/shard-000000.tar": b"x",
        "odd/manifest.json": b"[",
        "odd/shard-000000.tar": b"x",
        "page/manifest.json": b"{}",  # a web application's
    }
    for name, data in others.items():
        put(there, name, data)
    there.clear(JOB, Held("unfinished"))
    assert names(there) == sorted(others)


def test_a_neighbour_with_a_longer_name_is_not_ours(tmp_path):
    here, neighbour = (Destination(LocalStore(tmp_path), name) for name in ("out", "out2"))
    for destination in (here, neighbour):
        put(destination, "shard-000000.tar")
        put(destination, ".atdata/job.json", mark(JOB))
    here.clear(JOB, Held("unfinished"))
    assert names(neighbour) == [".atdata/job.json", "shard-000000.tar"]


def test_a_manifest_is_put_once(there):
    mine = Manifest.loads(manifest(JOB), url="")
    there.publish("manifest.json", mine)
    there.publish("manifest.json", mine)
    with pytest.raises(OccupiedError, match="another run"):
        there.publish("manifest.json", Manifest.loads(manifest(OTHER), url=""))
    assert (folder(there) / "manifest.json").read_bytes() == manifest(JOB)


def test_missing_and_cut_shards_of_a_finished_dataset_are_told(there):
    row = ShardRow("shard-000000.tar", 1, 5, "", "a", "a")
    parts = {"train": Manifest.loads(manifest(JOB, "train", (row,)), url="")}
    with pytest.raises(IntegrityError, match="is missing"):
        there.check_complete(parts)
    put(there, "train/shard-000000.tar", b"1234")
    with pytest.raises(IntegrityError, match="has 4 bytes"):
        there.check_complete(parts)
    put(there, "train/shard-000000.tar", b"12345")
    there.check_complete(parts)


def test_a_dataset_made_inside_an_unfinished_one_survives_it(there):
    store, prefix = there.store, there.prefix
    rows = [{"a": number} for number in range(10)]
    options = WriteOptions(name="mine")
    source = as_source(rows)
    put(there, ".atdata/job.json", mark(Job.of(source.inputs, options)))
    put(there, "shard-000000.tar", b"half")
    write(as_source(rows[:3]), store, f"{prefix}/inner", WriteOptions(name="inner"))
    result = write(source, store, prefix, options)
    assert result.status == "written"
    assert names(there) == ["inner/manifest.json", "inner/shard-000000.tar", "manifest.json", "shard-000000.tar"]
