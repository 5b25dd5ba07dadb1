"""Runs over what earlier runs left: nothing finished is stored again, and the end is that of an undisturbed run."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from atdata_cli.errors import DataError, OccupiedError, TemporaryError
from atdata_cli.refs import parse
from atdata_cli.shards.destination import Destination
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.reader import locate
from atdata_cli.shards.verify import verify
from atdata_cli.shards.write import WriteResult, write
from atdata_cli.sources.base import Source
from atdata_cli.sources.mappings import as_source
from atdata_cli.sources.registry import ReadOptions, open_source
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.local import LocalSink, LocalStore
from tests.meanwhile import Meanwhile

COUNT = 10
OPTIONS = WriteOptions(max_count=4)


class Recording(LocalStore):
    """Remembers what is stored, and may be told to fail at a shard."""

    def __init__(self, root: Path, fail: str = "", error: type[BaseException] = TemporaryError) -> None:
        super().__init__(root)
        self.stored: list[str] = []
        self.fail, self.error = fail, error

    def create(self, name: str) -> LocalSink:
        if self.fail and self.fail in name:
            raise self.error("the network is down")
        return RecordingSink(self, name)


class RecordingSink(LocalSink):
    def commit(self, *, durable: bool = True) -> None:
        super().commit(durable=durable)
        assert isinstance(self._store, Recording)
        self._store.stored.append(self._name.rpartition("out/")[2])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path, count: int = COUNT, change: Callable[[int], str] = str) -> Path:
    path.write_text("".join(json.dumps({"id": n, "text": change(n)}) + "\n" for n in range(count)))
    return path


def opened(*names: Path) -> Source:
    return open_source([str(name) for name in names], StoreFiles(), ReadOptions())


def photos(folder: Path, count: int = COUNT) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:02d}.jpg").write_bytes(bytes([number]) * 1000)
        (folder / f"{number:02d}.json").write_text(f'{{"n": {number:04d}}}')
    return folder


def tars(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for part in range(2):
        with tarfile.open(folder / f"{part}.tar", "w") as archive:
            for number in range(5):
                info = tarfile.TarInfo(f"{part}{number}.bin")
                info.size = 600
                archive.addfile(info, io.BytesIO(bytes([number]) * 600))
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {
    "rows": lambda folder: lines(folder / "rows.jsonl"),
    "files": lambda folder: photos(folder / "photos"),
    "tars": lambda folder: tars(folder / "tars"),
}
SETTINGS = {
    "plain": OPTIONS,
    "gz": WriteOptions(max_count=4, compress="gz"),
    "even": WriteOptions(shards=3),
    "split": WriteOptions(max_count=2, split="a=0.5,b=0.5"),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("at", ["000000", "000001", "000002", "manifest"])
def test_an_interrupted_run_is_finished(tmp_path: Path, source: str, setting: str, at: str) -> None:
    place, options = SOURCES[source](tmp_path), SETTINGS[setting]
    write(opened(place), LocalStore(tmp_path / "whole"), "out", options)
    store = Recording(tmp_path / "cut", fail=at)
    try:
        write(opened(place), store, "out", options)
    except TemporaryError:
        (left,) = [tree(tmp_path / "cut")] if (tmp_path / "cut").exists() else [{}]
        assert "out/manifest.json" not in left
    before, store.stored, store.fail = set(store.stored), [], ""
    result = write(opened(place), store, "out", options)
    assert result.status in ("written", "unchanged")
    assert not before.intersection(store.stored)
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_a_stream_is_finished_too(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        return ({"id": number, "text": "x" * number} for number in range(COUNT))

    write(as_source(rows()), LocalStore(tmp_path / "whole"), "out", OPTIONS)
    store = Recording(tmp_path / "cut", fail="000002")
    with pytest.raises(TemporaryError):
        write(as_source(rows()), store, "out", OPTIONS)
    store.stored, store.fail = [], ""
    write(as_source(rows()), store, "out", OPTIONS)
    assert store.stored == ["shard-000002.tar"]
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


@pytest.mark.parametrize("stream", [False, True])
def test_what_changed_between_two_runs_is_written_anew(tmp_path: Path, stream: bool) -> None:
    def source() -> Source:
        if stream:
            return as_source(json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines())
        return opened(tmp_path / "rows.jsonl")

    lines(tmp_path / "rows.jsonl")
    store = Recording(tmp_path / "cut", fail="000002")
    with pytest.raises(TemporaryError):
        write(source(), store, "out", OPTIONS)
    lines(tmp_path / "rows.jsonl", change=lambda n: "X" if n == 5 else str(n))
    store.stored, store.fail = [], ""
    write(source(), store, "out", OPTIONS)
    assert sorted(store.stored) == ["shard-000001.tar", "shard-000002.tar"]
    write(source(), LocalStore(tmp_path / "whole"), "out", OPTIONS)
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_state_that_lies_is_not_believed(tmp_path: Path) -> None:
    place = lines(tmp_path / "rows.jsonl")
    store = Recording(tmp_path / "cut", fail="000002")
    with pytest.raises(TemporaryError):
        write(opened(place), store, "out", OPTIONS)
    state = tmp_path / "cut" / "out" / ".atdata" / "shards"
    (state / "000000.json").write_text('{"name": "../../x", "samples": 4}')
    document = json.loads((state / "000001.json").read_text())
    (state / "000001.json").write_text(json.dumps({**document, "bytes": 5}))
    (state / "000007.json").write_text(json.dumps(document))
    store.stored, store.fail = [], ""
    write(opened(place), store, "out", OPTIONS)
    assert store.stored == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    assert not state.parent.exists()


def test_a_run_that_fails_on_its_data_leaves_nothing_even_of_earlier_ones(tmp_path: Path) -> None:
    place = lines(tmp_path / "rows.jsonl")
    store = Recording(tmp_path / "cut", fail="000002")
    with pytest.raises(TemporaryError):
        write(opened(place), store, "out", OPTIONS)
    text = place.read_text()
    place.write_text(text[: len(text) - 5] + "????\n")
    store.fail = ""
    with pytest.raises(DataError):
        write(opened(place), store, "out", OPTIONS)
    assert tree(tmp_path / "cut") == {}


# --- updates ---


def update(source: Source, store: LocalStore, options: WriteOptions = OPTIONS, **more: Any) -> WriteResult:
    return write(source, store, "out", options, if_exists="update", **more)


def keys(folder: Path) -> list[str]:
    located = locate(parse(str(folder)), StoreFiles())
    assert verify(located, StoreFiles(), jobs=1).problems == ()
    return [shard.row.first_key for shard in located.shards if shard.row is not None]


@pytest.mark.parametrize("stream", [False, True])
def test_an_update_stores_what_changed_and_nothing_else(tmp_path: Path, stream: bool) -> None:
    path = tmp_path / "rows.jsonl"

    def source() -> Source:
        return as_source(json.loads(line) for line in path.read_text().splitlines()) if stream else opened(path)

    lines(path)
    store = Recording(tmp_path)
    write(source(), store, "out", OPTIONS)
    first = tree(tmp_path / "out")

    store.stored = []
    assert update(source(), store).status == "unchanged"
    assert store.stored == []
    assert tree(tmp_path / "out") == first

    lines(path, change=lambda n: "X" if n == 5 else str(n))  # of the same size
    with pytest.raises(OccupiedError):
        write(source(), store, "out", OPTIONS)
    result = update(source(), store)
    assert (result.status, len(result.stored)) == ("written", 1)
    (name,) = store.stored
    assert name.startswith("shard-000001-")
    second = tree(tmp_path / "out")
    # Readers of the manifest of before are not disturbed.
    assert all(second[shard] == first[shard] for shard in first if shard != "manifest.json")
    assert keys(tmp_path / "out") != []

    # Appended: the last shard, and a new one.
    store.stored = []
    lines(path, 14, change=lambda n: "X" if n == 5 else str(n))
    update(source(), store)
    assert [name[:12] for name in store.stored] == ["shard-000002", "shard-000003"]
    assert not {*store.stored}.intersection(second)

    # Back to the beginning: names are never used again while somebody may read them.
    store.stored = []
    lines(path)
    update(source(), store)
    assert not {*store.stored}.intersection(second)
    destination = Destination(store, "out")
    old = destination.prune(dry_run=True)
    assert old == destination.prune() != []
    assert destination.prune() == []
    assert len(keys(tmp_path / "out")) == 3
    assert len(tree(tmp_path / "out")) == 4


def test_an_update_with_other_options(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl")
    store = Recording(tmp_path)
    write(opened(path), store, "out", OPTIONS)
    with pytest.raises(OccupiedError, match="--max-count 4 there, 3 here"):
        write(opened(path), store, "out", WriteOptions(max_count=3))
    with pytest.raises(OccupiedError, match="another dataset"):
        write(opened(path), store, "out", WriteOptions(max_count=3), if_exists="fail")
    planned = update(opened(path), store, WriteOptions(max_count=3), dry_run=True)
    assert (planned.status, len(planned.parts[""].shards)) == ("planned", 4)
    result = update(opened(path), store, WriteOptions(max_count=3))
    assert len(result.stored) == 4
    assert len(keys(tmp_path / "out")) == 4


def test_an_update_of_splits(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl")
    options = SETTINGS["split"]
    store = Recording(tmp_path)
    write(opened(path), store, "out", options)
    assert update(opened(path), store, options).status == "unchanged"
    lines(path, change=lambda n: "X" if n == 9 else str(n))
    store.stored = []
    update(opened(path), store, options)
    assert len(store.stored) == 1
    assert keys(tmp_path / "out") != []
    write(opened(path), LocalStore(tmp_path / "whole"), "out", options)
    Destination(store, "out").prune()
    whole, here = tree(tmp_path / "whole" / "out"), tree(tmp_path / "out")
    tars_of = [sorted(data for name, data in files.items() if name.endswith(".tar")) for files in (whole, here)]
    assert tars_of[0] == tars_of[1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", ["000001-", "000002-", "000003-"])
def test_an_interrupted_update_is_finished(tmp_path: Path, at: str, stream: bool) -> None:
    path = tmp_path / "rows.jsonl"

    def source() -> Source:
        return as_source(json.loads(line) for line in path.read_text().splitlines()) if stream else opened(path)

    stores = [Recording(tmp_path / "whole"), Recording(tmp_path / "cut")]
    lines(path)
    for store in stores:
        write(source(), store, "out", OPTIONS)
    old = (tmp_path / "cut" / "out" / "manifest.json").read_bytes()
    lines(path, 14, change=lambda n: "X" if n == 5 else str(n))
    whole, cut = stores
    update(source(), whole)
    cut.fail = at
    with pytest.raises(TemporaryError):
        update(source(), cut)
    assert (tmp_path / "cut" / "out" / "manifest.json").read_bytes() == old
    with pytest.raises(OccupiedError, match="another job's unfinished"):
        write(source(), cut, "out", WriteOptions(max_count=5), if_exists="update")
    cut.fail, before, cut.stored = "", cut.stored, []
    update(source(), cut)
    assert not {*before}.intersection(cut.stored)
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_a_failing_update_leaves_the_dataset(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl")
    store = Recording(tmp_path)
    write(opened(path), store, "out", OPTIONS)
    before = tree(tmp_path / "out")

    def rows() -> Iterator[Any]:
        yield from ({"id": -n, "text": "new"} for n in range(9))
        yield {"id": 1 << 70, "text": "no msgpack integer"}

    with pytest.raises(DataError):
        update(as_source(rows()), store)
    assert tree(tmp_path / "out") == before


def test_abort_takes_away_what_an_unfinished_job_left(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl")
    store = Recording(tmp_path / "cut", fail="000002")
    with pytest.raises(TemporaryError):
        write(opened(path), store, "out", OPTIONS)
    destination = Destination(store, "out")
    with pytest.raises(OccupiedError, match="unfinished") as told:
        write(opened(path), store, "out", WriteOptions(max_count=3))
    assert f"atdata-cli abort {destination.url}" in (told.value.hint or "")
    would = destination.abort(dry_run=True)
    assert would == destination.abort() == ["out/shard-000000.tar", "out/shard-000001.tar"]
    assert tree(tmp_path / "cut") == {}
    assert destination.abort() == []

    store.fail = ""
    write(opened(path), store, "out", OPTIONS)
    before = tree(tmp_path / "cut")
    lines(path, change=lambda n: "X" if n in (5, 9) else str(n))
    store.fail = "000002-"
    with pytest.raises(TemporaryError):
        update(opened(path), store)
    (gone,) = destination.abort()
    assert gone.startswith("out/shard-000001-")
    assert tree(tmp_path / "cut") == before


def test_a_lost_race_is_told(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl")
    store = LocalStore(tmp_path)
    write(opened(path), store, "out", OPTIONS)
    other = lines(tmp_path / "other.jsonl", 5)

    def rows() -> Iterator[Any]:
        yield {"id": 1}
        update(opened(other), LocalStore(tmp_path))
        yield {"id": 2}

    with pytest.raises(OccupiedError, match="another"):
        update(as_source(rows()), store)
    assert locate(parse(str(tmp_path / "out")), StoreFiles()).manifest.samples == 5  # type: ignore[union-attr]


def test_a_run_that_finished_since_the_survey_is_noticed_before_anything_is_stored(tmp_path: Path) -> None:
    other = lines(tmp_path / "other.jsonl", 5)
    store = Recording(tmp_path)

    def rows() -> Iterator[Any]:
        yield {"id": 1}
        write(opened(other), LocalStore(tmp_path), "out", OPTIONS)  # all of it, while this one looks at its first rows
        yield {"id": 2}

    with pytest.raises(OccupiedError, match="another run has finished another dataset"):
        write(as_source(rows()), store, "out", WriteOptions(max_count=1))
    assert store.stored == []
    assert keys(tmp_path / "out") == ["0000000000", "0000000004"]
    assert sorted(tree(tmp_path / "out")) == ["manifest.json", "shard-000000.tar", "shard-000001.tar"]


@pytest.mark.parametrize("whole", [True, False], ids=["which ends", "which breaks off"])
def test_another_run_of_the_job_at_any_moment(tmp_path: Path, whole: bool) -> None:
    """Whatever the other has done at whichever moment, this one does not take it for a stranger's work."""
    path = lines(tmp_path / "rows.jsonl")
    write(opened(path), LocalStore(tmp_path), "out", OPTIONS)
    undisturbed = tree(tmp_path / "out")
    number, acted = 0, True
    while acted:
        root = tmp_path / str(number)

        def other(root: Path = root) -> None:
            with suppress(TemporaryError):
                write(opened(path), Recording(root, fail="" if whole else "000001"), "out", OPTIONS)

        store = Meanwhile(LocalStore(root), number, other)
        with suppress(TemporaryError):
            write(opened(path), store, "out", OPTIONS)  # type: ignore[arg-type]
        write(opened(path), LocalStore(root), "out", OPTIONS)
        assert tree(root / "out") == undisturbed
        number, acted = number + 1, store.acted
    assert number > 15


@pytest.mark.parametrize("finished", [True, False])
def test_two_streams_at_once_are_not_one_job(tmp_path: Path, finished: bool) -> None:
    """Nothing tells what a stream will be, so that two of them have the same identity."""
    inner = Recording(tmp_path, fail="" if finished else "000001")

    def rows(text: str, then: Callable[[], object]) -> Iterator[Any]:
        yield {"id": 1, "text": text}
        then()
        yield {"id": 2, "text": text}

    def another() -> None:
        try:
            write(as_source(rows("b", lambda: None)), inner, "out", WriteOptions(max_count=1))
        except TemporaryError:
            assert not finished

    store = Recording(tmp_path)
    with pytest.raises(TemporaryError, match="another run"):
        write(as_source(rows("a", another)), store, "out", WriteOptions(max_count=1))
    assert store.stored == []


@pytest.mark.parametrize("ends", [True, False])
def test_a_stream_that_is_started_again_while_it_runs(tmp_path: Path, ends: bool) -> None:
    """The later run is the one that counts, whatever the earlier one would have stored; what it leaves is not kept."""
    later = Recording(tmp_path, fail="" if ends else "000002")

    def samples(text: bytes, then: Callable[[], object] | None = None) -> Iterator[Any]:
        for number in range(8):
            if number == 5 and then is not None:
                then()
            yield {"__key__": f"{number}", "bin": text}

    def another() -> None:
        while not (tmp_path / "out" / ".atdata" / "shards" / "000001.json").exists():
            time.sleep(0.01)  # two shards of the first run are finished
        try:
            write(as_source(samples(b"b")), later, "out", WriteOptions(max_count=2))
        except TemporaryError:
            assert not ends

    with pytest.raises(TemporaryError, match="another run of this command has taken over"):
        write(as_source(samples(b"a", another)), LocalStore(tmp_path), "out", WriteOptions(max_count=2))
    later.fail = ""
    write(as_source(samples(b"b")), later, "out", WriteOptions(max_count=2))
    assert keys(tmp_path / "out") == ["0", "2", "4", "6"]
    shards = [data for name, data in tree(tmp_path / "out").items() if name.endswith(".tar")]
    assert {data[512:513] for data in shards} == {b"b"}


def test_notes_of_a_stream_count_for_the_very_objects(tmp_path: Path) -> None:
    def samples() -> Iterator[Any]:
        return ({"__key__": f"{number}", "bin": b"a"} for number in range(8))

    store = Recording(tmp_path, fail="000002")
    with pytest.raises(TemporaryError):
        write(as_source(samples()), store, "out", WriteOptions(max_count=2))
    shard = tmp_path / "out" / "shard-000000.tar"
    shard.write_bytes(bytes(shard.stat().st_size))  # of the same size: by another run, which was about to end
    store.fail, store.stored = "", []
    write(as_source(samples()), store, "out", WriteOptions(max_count=2))
    assert sorted(store.stored) == ["shard-000000.tar", "shard-000002.tar", "shard-000003.tar"]
    assert keys(tmp_path / "out") == ["0", "2", "4", "6"]


@pytest.mark.parametrize("split", [False, True])
def test_marks_that_outlive_their_job_stop_nobody(tmp_path: Path, split: bool) -> None:
    """A run that is killed after its manifest, and before it has removed its marks, has finished all the same."""
    path = lines(tmp_path / "rows.jsonl")
    options = SETTINGS["split" if split else "plain"]
    store = Recording(tmp_path, fail="000001" if split else "000002")
    with pytest.raises(TemporaryError):
        write(opened(path), store, "out", options)
    state = tree(tmp_path / "out" / ".atdata")
    store.fail = ""
    write(opened(path), store, "out", options)
    whole = tree(tmp_path / "out")

    def killed_late() -> None:
        for name, data in state.items():
            (tmp_path / "out" / ".atdata" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "out" / ".atdata" / name).write_bytes(data)
        (tmp_path / "out" / f".shard-000000.tar.{'0' * 16}.part").write_bytes(b"half")

    killed_late()
    assert Destination(store, "out").prune() == []
    assert write(opened(path), store, "out", options).status == "unchanged"
    assert tree(tmp_path / "out") == whole
    assert not (tmp_path / "out" / ".atdata").exists()
    killed_late()
    (tmp_path / "out" / ".atdata" / "job.json").unlink()  # as if its twin had tidied up before its last notes
    assert write(opened(path), store, "out", options).status == "unchanged"
    assert tree(tmp_path / "out") == whole
    killed_late()
    lines(path, 14)
    assert update(opened(path), store, options).status == "written"  # another job, as the input has another size
    assert not [name for name in tree(tmp_path / "out") if name.startswith(".")]


def test_readers_of_splits_see_all_of_an_update_or_nothing(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", 40)
    options = SETTINGS["split"]
    store = LocalStore(tmp_path)
    write(opened(path), store, "out", options)
    before = tree(tmp_path / "out")
    lines(path, 40, change=lambda n: f"changed {n}")

    class Cut(LocalStore):
        def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool:
            raise TemporaryError("the network is down")

    with pytest.raises(TemporaryError):
        update(opened(path), Cut(tmp_path), options)
    now = tree(tmp_path / "out")
    assert {name: now[name] for name in before} == before
    first = keys(tmp_path / "out")
    update(opened(path), store, options)
    assert keys(tmp_path / "out") == first
    after = tree(tmp_path / "out")
    assert not [name for name in after if name.startswith(".")]
    root = json.loads(after["manifest.json"])
    for split, row in root["splits"].items():
        assert row["manifest"] != f"{split}/manifest.json"
        assert after[row["manifest"]] == after[f"{split}/manifest.json"]  # for those who read a split by itself
    Destination(store, "out").prune()
    lines(path, 50, change=lambda n: f"changed {n}")
    update(opened(path), store, options)
    old = Destination(store, "out").prune()
    assert sorted(name for name in old if name.endswith(".json")) == sorted(
        f"out/{row['manifest']}" for row in root["splits"].values()
    )
    assert len(keys(tmp_path / "out")) > 0


def test_a_store_that_ignores_conditions_is_told_of(tmp_path: Path) -> None:
    """As some S3 servers do: nothing keeps two runs apart there, and whoever runs one has to know."""

    class Careless(LocalStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            self.put(name, data)
            return True

    path = lines(tmp_path / "rows.jsonl")
    told = write(opened(path), Careless(tmp_path / "a"), "out", OPTIONS).warnings
    assert [warning for warning in told if "ignores the condition that keeps runs apart" in warning]
    assert not write(opened(path), LocalStore(tmp_path / "b"), "out", OPTIONS).warnings
