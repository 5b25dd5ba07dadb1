"""Copying between all kinds of stores: the same bytes, checked, and never half of it taken for the whole."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from atdata_cli import open_store
from atdata_cli.errors import IntegrityError, OccupiedError, TemporaryError, UsageError
from atdata_cli.refs import parse
from atdata_cli.shards.copy import CopyResult, copy_dataset
from atdata_cli.shards.protocols import ObjectInfo, ShardSink
from atdata_cli.shards.reader import locate
from atdata_cli.stores.base import StoreBase
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.testing import pattern
from tests.meanwhile import Meanwhile
from tests.servers.seaweed import S3Server

KINDS = ["local", "memory", "s3"]
Place = Callable[[str], str]


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A new, empty place of a kind, as a URL."""

    def make(kind: str) -> str:
        if kind == "local":
            return str(tmp_path / uuid.uuid4().hex)
        if kind == "memory":
            return f"memory://{uuid.uuid4().hex}/place"
        for name, value in request.getfixturevalue("s3_env").items():
            monkeypatch.setenv(name, value)
        return f"s3://{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}"

    return make


def samples(count: int = 40) -> Iterator[dict[str, bytes]]:
    for number in range(count):
        yield {"__key__": f"{number:04d}", "bin": pattern(3000, seed=number), "txt": b"%d" % number}


def dataset(url: str, **options: object) -> str:
    store, prefix = open_store(url)
    store.write_shards(samples(), prefix=prefix, maxcount=10, name="things", **options)
    return url


def content(url: str) -> dict[str, bytes]:
    store, prefix = open_store(url)
    assert isinstance(store, StoreBase)
    return {item.name.removeprefix(f"{prefix}/"): store.read(item.name) or b"" for item in store.list(prefix)}


def put(url: str, data: bytes) -> None:
    store, name = open_store(url)
    assert isinstance(store, StoreBase)
    sink = store.create(name)
    sink.write(data)
    sink.commit()


def copied(source: str, dest: str, *, store: StoreBase | None = None, **options: object) -> CopyResult:
    files = StoreFiles()
    found, prefix = open_store(dest)
    return copy_dataset(locate(parse(source), files), files, store or found, prefix, **options)  # type: ignore[arg-type]


class Spy:
    """A store that remembers what is created and read, and fails when told to."""

    def __init__(self, store: StoreBase, *, fail_at: int | None = None, lose_states: bool = False) -> None:
        self._store = store
        self.created: list[str] = []
        self.opened: list[str] = []
        self._fail_at = fail_at
        self._lose_states = lose_states

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def create(self, name: str) -> ShardSink:
        if self._fail_at is not None and len(self.created) == self._fail_at:
            raise TemporaryError("the server is overloaded", url=self._store.url(name))
        self.created.append(name.rpartition("/")[2])
        return self._store.create(name)

    def open(self, name: str) -> object:
        self.opened.append(name.rpartition("/")[2])
        return self._store.open(name)

    def put(self, name: str, data: bytes) -> None:
        if self._lose_states and "/.atdata/shards/" in name:
            raise TemporaryError("the server is overloaded", url=self._store.url(name))
        self._store.put(name, data)


def spied(dest: str, **faults: object) -> Spy:
    store, _ = open_store(dest)
    return Spy(store, **faults)  # type: ignore[arg-type]


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("here", KINDS)
class TestAllDirections:
    def test_a_dataset(self, place, here, there):
        source, dest = dataset(place(here)), place(there)
        result = copied(source, dest, jobs=3)
        assert result.status == "copied"
        assert [shard.name.rpartition("/")[2] for shard in result.shards] == [f"shard-{n:06d}.tar" for n in range(4)]
        assert all(shard.copied for shard in result.shards)
        assert content(dest) == content(source)
        again = copied(source, dest)
        assert (again.status, [shard.copied for shard in again.shards]) == ("unchanged", [False] * 4)

    def test_splits(self, place, here, there):
        source, dest = dataset(place(here), split="train=0.7,val=0.3"), place(there)
        assert copied(source + "/manifest.json", dest).status == "copied"
        assert content(dest) == content(source)
        assert {"manifest.json", "train/manifest.json", "val/shard-000000.tar"} <= content(dest).keys()
        assert copied(source, dest).status == "unchanged"
        one = place(there)
        copied(source + "/val", one)
        assert content(one).keys() == {"manifest.json", "shard-000000.tar"}

    def test_shards_that_others_made(self, place, here, there):
        source, dest = place(here), place(there)
        for name in ("train/000.tar", "train/001.tar", "val/000.tar.gz"):
            put(f"{source}/{name}", pattern(5000, seed=len(name)))
        put(f"{source}/README", b"no shard")
        result = copied(source, dest)
        assert (result.status, result.manifest) == ("copied", None)
        expected = content(source)
        del expected["README"]
        assert content(dest) == expected
        assert copied(source, dest).status == "unchanged"

    def test_an_empty_dataset(self, place, here, there):
        source, dest = place(here), place(there)
        store, prefix = open_store(source)
        store.write_shards([], prefix=prefix, allow_empty=True)
        assert copied(source, dest).status == "copied"
        assert content(dest) == content(source)
        assert content(dest).keys() == {"manifest.json"}


@pytest.mark.parametrize("there", KINDS)
class TestResuming:
    def test_finished_shards_are_not_sent_again(self, place, there):
        source, dest = dataset(place("local")), place(there)
        with pytest.raises(TemporaryError, match="overloaded"):
            copied(source, dest, store=spied(dest, fail_at=2), jobs=1)
        left = content(dest)
        shards, states = ["shard-000000.tar", "shard-000001.tar"], [f".atdata/shards/00000{n}.json" for n in (0, 1)]
        assert left.keys() == {*shards, *states, ".atdata/job.json"}
        with pytest.raises(IntegrityError, match="unfinished"):
            locate(parse(dest), StoreFiles())
        spy = spied(dest)
        result = copied(source, dest, store=spy)
        assert sorted(spy.created) == ["shard-000002.tar", "shard-000003.tar"]
        assert spy.opened == []  # nor read back: what they were is known
        assert [shard.copied for shard in result.shards] == [False, False, True, True]
        assert content(dest) == content(source)

    def test_a_shard_whose_state_was_lost_is_read_back(self, place, there):
        source, dest = dataset(place("local")), place(there)
        with pytest.raises(TemporaryError):
            copied(source, dest, store=spied(dest, lose_states=True), jobs=1)
        assert content(dest).keys() == {"shard-000000.tar", ".atdata/job.json"}
        spy = spied(dest)
        copied(source, dest, store=spy)
        assert spy.opened == ["shard-000000.tar"]
        assert "shard-000000.tar" not in spy.created
        assert content(dest) == content(source)

    def test_a_shard_that_was_replaced_since_is_copied_again(self, place, there):
        source, dest = dataset(place("local")), place(there)
        with pytest.raises(TemporaryError):
            copied(source, dest, store=spied(dest, fail_at=2), jobs=1)
        shard = content(dest)["shard-000001.tar"]
        put(f"{dest}/shard-000001.tar", b"\0" + shard[1:])
        spy = spied(dest)
        copied(source, dest, store=spy)
        assert sorted(spy.created) == [f"shard-{n:06d}.tar" for n in (1, 2, 3)]
        assert content(dest) == content(source)

    @pytest.mark.parametrize("state", [b"", b"[]", b'{"bytes": 1}', b'{"bytes":1,"sha256":2,"version":3}', b"[" * 9999])
    def test_states_that_cannot_be_read(self, place, there, state):
        source, dest = dataset(place("local")), place(there)
        with pytest.raises(TemporaryError):
            copied(source, dest, store=spied(dest, fail_at=1), jobs=1)
        put(f"{dest}/.atdata/shards/000000.json", state)
        copied(source, dest)
        assert content(dest) == content(source)

    def test_shards_without_checksum(self, place, there):
        source, dest = place("local"), place(there)
        for number in range(3):
            put(f"{source}/{number}.tar", pattern(5000, seed=number))
        with pytest.raises(TemporaryError):
            copied(source, dest, store=spied(dest, fail_at=1), jobs=1)
        with pytest.raises(IntegrityError, match="unfinished"):
            locate(parse(dest), StoreFiles())
        spy = spied(dest)
        copied(source, dest, store=spy)
        assert sorted(spy.created) == ["1.tar", "2.tar"]
        assert content(dest) == content(source)

    def test_a_finished_copy_that_lost_a_shard_is_mended(self, place, there):
        source, dest = dataset(place("local"), split="a=0.5,b=0.5"), place(there)
        copied(source, dest)
        store, prefix = open_store(dest)
        assert isinstance(store, StoreBase)
        store.delete(f"{prefix}/a/shard-000000.tar")
        store.delete(f"{prefix}/b/manifest.json")
        result = copied(source, dest, dry_run=True)
        assert (result.status, sum(shard.copied for shard in result.shards)) == ("planned", 1)
        result = copied(source, dest)
        assert (result.status, sum(shard.copied for shard in result.shards)) == ("copied", 1)
        assert content(dest) == content(source)

    def test_a_run_that_ended_before_it_removed_its_marks(self, place, there):
        source, dest = dataset(place("local")), place(there)
        with pytest.raises(TemporaryError):
            copied(source, dest, store=spied(dest, fail_at=2), jobs=1)
        marks = {name: data for name, data in content(dest).items() if name.startswith(".atdata/")}
        copied(source, dest)
        for name, data in marks.items():
            put(f"{dest}/{name}", data)
        assert copied(source, dest).status == "unchanged"
        assert content(dest) == content(source)


@pytest.mark.parametrize("there", KINDS)
class TestWhatIsWrong:
    @pytest.mark.parametrize("here", ["local", "s3"])
    def test_a_damaged_shard_is_never_visible(self, place, here, there):
        source, dest = dataset(place(here)), place(there)
        data = bytearray(content(source)["shard-000002.tar"])
        data[2000] ^= 1
        put(f"{source}/shard-000002.tar", bytes(data))
        with pytest.raises(IntegrityError, match="SHA-256") as caught:
            copied(source, dest, jobs=1)
        assert caught.value.url == f"{source}/shard-000002.tar"
        shards = {name for name in content(dest) if not name.startswith(".atdata/")}
        assert shards == {"shard-000000.tar", "shard-000001.tar"}
        with pytest.raises(IntegrityError, match="unfinished"):
            locate(parse(dest), StoreFiles())

    def test_nothing_stays_if_nothing_was_copied(self, place, there):
        source, dest = dataset(place("local")), place(there)
        shard = content(source)["shard-000000.tar"]
        for damaged, words in ((shard[:-1], "ends after"), (shard + b"x", "larger than")):
            put(f"{source}/shard-000000.tar", damaged)
            with pytest.raises(IntegrityError, match=words):
                copied(source, dest, jobs=1)
            assert content(dest) == {}
        Path(source, "shard-000000.tar").unlink()
        with pytest.raises(IntegrityError, match="names a shard that is not there"):
            copied(source, dest, jobs=1)
        assert content(dest) == {}

    def test_a_split_that_the_root_manifest_does_not_vouch_for(self, place, there):
        source, dest = dataset(place("local"), split="a=0.5,b=0.5"), place(there)
        manifest = json.loads(content(source)["a/manifest.json"])
        put(f"{source}/a/manifest.json", json.dumps(manifest).encode())
        with pytest.raises(IntegrityError, match="vouches"):
            copied(source, dest)
        assert content(dest) == {}

    def test_what_else_is_at_the_destination_is_left_alone(self, place, there):
        source = dataset(place("local"))
        other = place("local")
        open_store(other)[0].write_shards(samples(5), prefix=open_store(other)[1], name="other")
        foreign = place("local")
        put(f"{foreign}/a.tar", b"1")
        put(f"{foreign}/b.tar", b"2")
        for found, sources in (
            ({"manifest.json": content(other)["manifest.json"]}, [source, foreign]),
            ({"manifest.json": b'{"name": "a web app"}'}, [source]),
            ({"shard-000007.tar": b"x"}, [source]),
            ({"train/shard-000000.tar": b"x"}, [source]),
            ({".atdata/job.json": b'{"job": "another"}'}, [source, foreign]),
            ({".atdata/job.json": b"?"}, [source, foreign]),
            ({"a.tar": b"1"}, [foreign]),
            ({"a.tar": b"1", "b.tar": b"3"}, [foreign]),
            ({"a.tar": b"1", "b.tar": b"22"}, [foreign]),
        ):
            dest = place(there)
            for name, data in found.items():
                put(f"{dest}/{name}", data)
            for reference in sources:
                for options in ({}, {"dry_run": True}):
                    with pytest.raises(OccupiedError):
                        copied(reference, dest, **options)
            assert content(dest) == found

    def test_what_does_not_matter_stays(self, place, there):
        source, dest = dataset(place("local")), place(there)
        put(f"{dest}/README.md", b"about it")
        put(f"{dest}/labels/x.csv", b"1")
        copied(source, dest)
        assert content(dest).keys() == {*content(source), "README.md", "labels/x.csv"}

    def test_if_exists_fail(self, place, there):
        source, dest = dataset(place("local")), place(there)
        with pytest.raises(TemporaryError):
            copied(source, dest, store=spied(dest, fail_at=2), jobs=1)
        with pytest.raises(OccupiedError, match="unfinished"):
            copied(source, dest, if_exists="fail")
        copied(source, dest)
        with pytest.raises(OccupiedError, match="finished"):
            copied(source, dest, if_exists="fail")

    def test_a_dry_run_touches_nothing(self, place, there):
        source, dest = dataset(place("local")), place(there)
        result = copied(source, dest, dry_run=True)
        assert (result.status, len(result.shards)) == ("planned", 4)
        assert content(dest) == {}
        copied(source, dest)
        assert copied(source, dest, dry_run=True).status == "unchanged"


class TestNames:
    @pytest.mark.parametrize(
        "name", ["../out.tar", "a/b.tar", "/etc/x.tar", ".hidden.tar", "..", "a\\b.tar", "a\n.tar"]
    )
    def test_names_in_manifests_that_leave_the_folder(self, place, name):
        source, dest = dataset(place("local")), place("local")
        manifest = json.loads(content(source)["manifest.json"])
        manifest["shards"][0]["name"] = name
        put(f"{source}/manifest.json", json.dumps(manifest).encode())
        with pytest.raises(IntegrityError, match="damaged"):
            copied(source, dest)
        assert not Path(dest).exists()

    @pytest.mark.parametrize("name", ["manifest.json", "job.json", "x"])
    def test_names_in_manifests_that_are_no_shards(self, place, name):
        source, dest = dataset(place("local")), place("local")
        manifest = json.loads(content(source)["manifest.json"])
        manifest["shards"][0]["name"] = name
        put(f"{source}/manifest.json", json.dumps(manifest).encode())
        with pytest.raises(UsageError, match="no shard"):
            copied(source, dest)
        assert not Path(dest).exists()

    def test_a_manifest_that_names_a_shard_twice(self, place):
        source, dest = dataset(place("local")), place("local")
        manifest = json.loads(content(source)["manifest.json"])
        manifest["shards"].append(manifest["shards"][0])
        put(f"{source}/manifest.json", json.dumps(manifest).encode())
        with pytest.raises(IntegrityError, match="twice"):
            copied(source, dest)
        assert not Path(dest).exists()

    def test_equal_names_in_two_folders(self, place):
        source, dest = place("local"), place("local")
        for name in ("a/0.tar", "b/0.tar"):
            put(f"{source}/{name}", name.encode())
        for pattern_ in ("{a,b}/0.tar", "*/0.tar", "**/*.tar"):
            with pytest.raises(UsageError, match=r"0\.tar"):
                copied(f"{source}/{pattern_}", dest)
        copied(source, dest)
        assert content(dest) == {"a/0.tar": b"a/0.tar", "b/0.tar": b"b/0.tar"}

    @pytest.mark.parametrize("name", ["a\nb.tar", "\x1b[2J.tar"])
    def test_names_that_would_break_the_output(self, place, name):
        source, dest = place("local"), place("local")
        put(f"{source}/{name}", b"x")
        with pytest.raises(UsageError, match="cannot be copied under the name"):
            copied(source, dest)
        assert not Path(dest).exists()

    def test_names_in_a_bucket_that_leave_the_folder(self, place, s3_server: S3Server, s3_bucket: str):
        """S3 has keys that no path can be made of."""
        source, dest = place("s3"), place("local")
        put(f"{source}/good.tar", b"x")
        located = locate(parse(source), StoreFiles())
        for name in ("../x.tar", "a/../../x.tar", "/x.tar", "a//b.tar", "a/.atdata/x.tar"):
            (shard,) = located.shards
            hostile = type(shard)(shard.url, shard.size, name=name)
            with pytest.raises(UsageError):
                copy_dataset(type(located)(source, [hostile]), StoreFiles(), *open_store(dest))  # type: ignore[arg-type]
        assert not Path(dest).exists()

    def test_globs_braces_and_single_shards(self, place):
        source = place("local")
        for number in range(4):
            put(f"{source}/{number:03d}.tar", pattern(1000, seed=number))
        for reference, names in (
            ("*.tar", [0, 1, 2, 3]),
            ("{001..002}.tar", [1, 2]),
            ("003.tar", [3]),
        ):
            dest = place("local")
            copied(f"{source}/{reference}", dest)
            assert content(dest).keys() == {f"{number:03d}.tar" for number in names}
        put(f"{source}/rows.jsonl", b"{}")
        with pytest.raises(UsageError, match="not a shard"):
            copied(f"{source}/rows.jsonl", place("local"))


def test_a_store_that_has_no_versions(place):
    """What is there is read back then."""
    source, dest = dataset(place("local")), place("local")

    class Versionless(Spy):
        def stat(self, name: str) -> ObjectInfo | None:
            info = self._store.stat(name)
            return info and ObjectInfo(info.name, info.size)

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            return (ObjectInfo(info.name, info.size) for info in self._store.list(prefix))

    store, _ = open_store(dest)
    with pytest.raises(TemporaryError):
        copied(source, dest, store=Versionless(store, fail_at=2), jobs=1)  # type: ignore[arg-type]
    spy = Versionless(store)  # type: ignore[arg-type]
    copied(source, dest, store=spy)
    assert sorted(spy.opened) == ["shard-000000.tar", "shard-000001.tar"]
    assert sorted(spy.created) == ["shard-000002.tar", "shard-000003.tar"]


@pytest.mark.parametrize("whole", [True, False], ids=["which ends", "which breaks off"])
@pytest.mark.parametrize("with_manifest", [True, False], ids=["dataset", "shards"])
def test_another_run_of_the_copy_at_any_moment(place, whole, with_manifest):
    """Whatever the other has done at whichever moment, this one does not take it for a stranger's work."""
    source = dataset(place("local"))
    if not with_manifest:
        Path(source, "manifest.json").unlink()
    number, acted = 0, True
    while acted:
        dest = place("memory")

        def other(dest: str = dest) -> None:
            if whole:
                copied(source, dest)
            else:
                with suppress(TemporaryError):
                    copied(source, dest, store=spied(dest, fail_at=2), jobs=1)

        store = Meanwhile(open_store(dest)[0], number, other)
        assert copied(source, dest, store=store, jobs=1).status in ("copied", "unchanged")
        if not whole:  # its state may have come after this one had tidied up
            assert copied(source, dest).status == "unchanged"
        assert content(dest) == content(source)
        number, acted = number + 1, store.acted
    assert number > 20
