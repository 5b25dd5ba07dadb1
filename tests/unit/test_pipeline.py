"""The threads between writers and store: nothing is lost, nothing waits for ever, nothing half-done stays."""

import threading

import pytest

from atdata_cli.errors import AtdataError, UsageError
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.plan import Limits
from atdata_cli.shards.series import ShardWriter, Target
from atdata_cli.shards.stream import BUFFER_BYTES, Pipeline
from atdata_cli.shards.write import write
from atdata_cli.sources.base import Sample
from atdata_cli.sources.mappings import as_source
from atdata_cli.stores.local import LocalStore


class FullDisk(AtdataError):
    pass


class FailingStore(LocalStore):
    """A disk store whose sinks fail at one of their steps."""

    def __init__(self, root, step, shard):
        super().__init__(root)
        self.step = step
        self.shard = shard
        self.open = 0

    def create(self, name):
        sink = super().create(name)
        self.open += 1
        return FailingSink(self, sink, self.step if self.shard in name else "")


class FailingSink:
    def __init__(self, store, sink, step):
        self.store, self.sink, self.step = store, sink, step

    def write(self, chunk):
        if self.step == "write":
            raise FullDisk("no space left")
        self.sink.write(chunk)

    def commit(self):
        if self.step == "commit":
            raise FullDisk("no space left")
        self.sink.commit()
        self.store.open -= 1

    def abort(self):
        self.sink.abort()
        self.store.open -= 1


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def threads():
    """The threads of runs that are still there, save those that another test's pieces may have kept for the next."""
    before = set(threading.enumerate())

    def found():
        names = ("hash", "store", "commit")
        return [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(names)]

    return found


@pytest.mark.parametrize("count", [2, 5, 30])
def test_any_number_of_splits_is_written_at_the_same_time(tmp_path, count, threads):
    rows = [{"split": f"s{number % count}", "text": "x" * 20_000} for number in range(3000)]
    result = write(as_source(rows), LocalStore(tmp_path), "out", WriteOptions(split_from="split"))
    assert len(result.parts) == count
    assert sum(part.samples for part in result.parts.values()) == 3000
    assert not threads()


def test_too_many_splits_are_refused_and_leave_nothing(tmp_path):
    rows = [{"split": f"s{number}"} for number in range(200)]
    with pytest.raises(UsageError, match="splits"):
        write(as_source(rows), LocalStore(tmp_path), "out", WriteOptions(split_from="split"))
    assert files(tmp_path) == []


@pytest.mark.parametrize("step", ["write", "commit"])
@pytest.mark.parametrize("shard", ["shard-000000", "shard-000001", "shard-000003"])
@pytest.mark.parametrize("size", [1, BUFFER_BYTES])
@pytest.mark.parametrize("split", [None, "a=0.3,b=0.3,c=0.4"])
def test_a_store_that_fails_ends_the_run_with_its_error(tmp_path, step, shard, size, split, threads):
    store = FailingStore(tmp_path, step, shard)
    samples = [{"__key__": f"{number:02d}", "bin": bytes(size)} for number in range(24)]
    options = WriteOptions(max_count=2, split=split)
    with pytest.raises(FullDisk):
        write(as_source(samples), store, "out", options)
    assert store.open == 0
    assert not threads()
    # What is finished stays, marked as unfinished, until there is room; if nothing is, nothing does.
    left = [name for name in files(tmp_path) if name.endswith(".tar")]
    assert ("out/.atdata/job.json" in files(tmp_path)) == bool(left)
    assert not [name for name in files(tmp_path) if name.endswith((".part", "manifest.json"))]
    done = write(as_source(samples), LocalStore(tmp_path), "out", options)
    assert done.manifest.samples == 24
    assert not (tmp_path / "out" / ".atdata").exists()


def test_a_failure_is_told_by_a_later_sample_of_a_large_shard(tmp_path):
    store = FailingStore(tmp_path, "write", "shard")
    added = []
    with Pipeline() as pipeline:
        writer = ShardWriter(
            lambda _: Target("shard.tar", store.create("out/shard.tar"), stores=True), Limits(None, None), pipeline
        )

        def add_many():
            for number in range(100):
                writer.add(Sample(f"{number}", {"bin": bytes(BUFFER_BYTES // 2)}, "here"))
                added.append(number)

        with pytest.raises(FullDisk):
            add_many()
        writer.abort()
    assert len(added) < 50
    assert store.open == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupt_leaves_no_open_shard(tmp_path, error, threads):
    def samples():
        for number in range(10):
            yield {"__key__": f"{number}", "bin": b"x"}
        raise error

    store = FailingStore(tmp_path, "", "shard")
    with pytest.raises(error):
        write(as_source(samples()), store, "out", WriteOptions(max_count=4))
    assert store.open == 0
    # What is finished stays, marked as unfinished, and the same call goes on.
    assert files(tmp_path) == [
        "out",
        "out/.atdata",
        "out/.atdata/job.json",
        "out/.atdata/shards",
        "out/.atdata/shards/000000.json",
        "out/.atdata/shards/000001.json",
        "out/shard-000000.tar",
        "out/shard-000001.tar",
    ]
    assert not threads()
    again = as_source({"__key__": f"{number}", "bin": b"x"} for number in range(10))
    done = write(again, store, "out", WriteOptions(max_count=4))
    assert done.manifest.samples == 10
    assert [row.name for row in done.stored] == ["shard-000002.tar"]
    assert not (tmp_path / "out" / ".atdata").exists()


def test_shards_do_not_depend_on_how_buffers_are_filled(tmp_path):
    rows = [{"split": f"s{number % 20}", "text": f"{number} " * (number % 97)} for number in range(20_000)]
    several = WriteOptions(split_from="split", compress="gz")
    together = write(as_source(rows), LocalStore(tmp_path), "together", several)
    for name in ("s0", "s19"):
        alone = [row for row in rows if row["split"] == name]
        keyed = [{"__key__": f"{number:010d}", **row} for number, row in enumerate(rows) if row["split"] == name]
        assert len(alone) == len(keyed)
        result = write(as_source(keyed), LocalStore(tmp_path), name, WriteOptions(compress="gz"))
        assert [row.sha256 for row in result.manifest.shards] == [row.sha256 for row in together.parts[name].shards]


def test_rows_with_few_of_many_fields_stay_under_the_limit(tmp_path):
    rows = [{f"field_number_{(number * 7 + other) % 300}": number for other in range(3)} for number in range(5000)]
    result = write(as_source(rows), LocalStore(tmp_path), "out", WriteOptions(max_size=2_000_000))
    sizes = [row.bytes for row in result.manifest.shards]
    assert max(sizes) <= 2_000_000
    assert min(sizes[:-1]) >= 1_500_000
    assert result.limit == "--max-size"
