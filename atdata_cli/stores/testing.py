"""The contract that every store passes, as a pytest suite.

For a store of your own, in a test module::

    from atdata_cli.stores.testing import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

Only this module needs pytest. ``pytest.register_assert_rewrite("atdata_cli.stores.testing")`` in a conftest
makes its failures say more.
"""

# ruff: noqa: D102 - the names of tests say what they test.

from __future__ import annotations

import hashlib
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar

import pytest

from atdata_cli.errors import AtdataError, NotFoundError
from atdata_cli.shards.protocols import ShardStore
from atdata_cli.stores.base import AbstractDataStore, StoreBase

__all__ = ["StoreContract", "WriteShardsContract", "pattern"]

T = TypeVar("T")

KIB = 1 << 10
MIB = 1 << 20

ODD_NAMES = [
    "with space/a b.tar",
    "plus+and%percent%20.tar",
    "hash#question?query=1&b.tar",
    "grüße/日本語/🦜.tar",
    "quote'\"and;semicolon.tar",
    "tilde~at@colon:comma,.tar",
    "brackets[0]{1..2}(3).tar",
    "-dash/--double.tar",
    "x" * 200 + ".tar",
]


def pattern(size: int, seed: int = 0) -> bytes:
    """*size* bytes that differ everywhere, so that exchanged or repeated parts are noticed."""
    block = hashlib.shake_128(seed.to_bytes(8, "big")).digest(MIB + 1)
    return (block * (size // len(block) + 1))[:size]


def _put(store: ShardStore, name: str, data: bytes) -> None:
    sink = store.create(name)
    sink.write(data)
    sink.commit()


def _names(store: ShardStore, prefix: str) -> list[str]:
    return [info.name for info in store.list(prefix)]


def _put_number(store: ShardStore, name: str, number: int) -> bool:
    return store.put_if_absent(name, b"%d" % number)


def _at_once(count: int, action: Callable[[int], T]) -> list[T]:
    """Results of *action* for 0 … *count* - 1, begun at the same moment in as many threads."""
    gate = threading.Barrier(count)

    def run(index: int) -> T:
        gate.wait()
        return action(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class StoreContract:
    """What the sharding job relies on. Override :meth:`store`, and what of the others your store needs.

    Attributes
    ----------
    large : bytes of an object that is stored in several parts, or as large as tests of this store may be.
    """

    large = 5 * MIB + 1

    @pytest.fixture
    def store(self) -> ShardStore:
        """An empty store."""
        pytest.fail("override the fixture 'store'")

    def leftovers(self, store: Any) -> list[str]:
        """What is left of unfinished objects that :meth:`ShardStore.list` does not show."""
        return []

    def assert_empty(self, store: ShardStore) -> None:
        """Nothing is there, visible or not."""
        assert _names(store, "") == []
        assert self.leftovers(store) == []

    # -- protocols

    def test_is_a_store_for_the_job(self, store: ShardStore) -> None:
        assert isinstance(store, ShardStore)
        assert isinstance(store.atomic, bool)

    def test_is_a_store_for_the_library(self, store: ShardStore) -> None:
        assert isinstance(store, AbstractDataStore)
        assert isinstance(store.supports_streaming(), bool)

    def test_url_and_read_url_are_text(self, store: ShardStore) -> None:
        """``read_url`` gives what WebDataset opens, or says why it cannot."""
        _put(store, "a/b.tar", b"x")
        url = store.url("a/b.tar")
        assert url.endswith("a/b.tar")
        assert isinstance(store, AbstractDataStore)
        with suppress(AtdataError):
            assert isinstance(store.read_url(url), str)

    # -- sinks

    @pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 64 * KIB, MIB + 1])
    def test_round_trip(self, store: ShardStore, size: int) -> None:
        data = pattern(size)
        _put(store, "sizes/one.bin", data)
        info = store.stat("sizes/one.bin")
        assert info is not None
        assert (info.name, info.size) == ("sizes/one.bin", size)
        assert store.read("sizes/one.bin") == data
        with store.open("sizes/one.bin") as file:
            assert file.read() == data
        assert self.leftovers(store) == []

    def test_round_trip_of_a_large_object_from_a_reused_chunk(self, store: ShardStore) -> None:
        data = pattern(self.large)
        chunk = bytearray(3 * MIB + 17)
        sink = store.create("large.bin")
        for at in range(0, len(data), len(chunk)):
            piece = data[at : at + len(chunk)]
            chunk[: len(piece)] = piece
            sink.write(memoryview(chunk)[: len(piece)])
            chunk[:] = bytes(len(chunk))
        sink.commit()
        with store.open("large.bin") as file:
            assert _sha256(file) == hashlib.sha256(data).hexdigest()
        assert self.leftovers(store) == []

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_every_kind_of_chunk(self, store: ShardStore, kind: Callable[[bytes], Any]) -> None:
        sink = store.create("chunks.bin")
        for chunk in (b"one", b"", b"two"):
            sink.write(kind(chunk))
        sink.commit()
        assert store.read("chunks.bin") == b"onetwo"

    def test_nothing_is_visible_before_commit(self, store: ShardStore) -> None:
        sink = store.create("a/hidden.bin")
        sink.write(pattern(self.large))
        assert store.stat("a/hidden.bin") is None
        assert store.read("a/hidden.bin") is None
        assert _names(store, "") == []
        assert _names(store, "a") == []
        sink.commit()
        assert _names(store, "") == ["a/hidden.bin"]

    @pytest.mark.parametrize("written", ["nothing", "little", "much"])
    def test_abort_leaves_nothing(self, store: ShardStore, written: str) -> None:
        sink = store.create("a/aborted.bin")
        if written != "nothing":
            sink.write(pattern(self.large if written == "much" else 10))
        sink.abort()
        sink.abort()
        assert store.stat("a/aborted.bin") is None
        self.assert_empty(store)

    def test_abort_keeps_what_was_there(self, store: ShardStore) -> None:
        _put(store, "kept.bin", b"old")
        sink = store.create("kept.bin")
        sink.write(b"new")
        sink.abort()
        assert store.read("kept.bin") == b"old"

    def test_commit_replaces_what_was_there(self, store: ShardStore) -> None:
        _put(store, "a/replaced.bin", b"old and longer")
        before = store.stat("a/replaced.bin")
        sink = store.create("a/replaced.bin")
        sink.write(b"new")
        assert store.read("a/replaced.bin") == b"old and longer"
        sink.commit()
        after = store.stat("a/replaced.bin")
        assert store.read("a/replaced.bin") == b"new"
        assert before is not None
        assert after is not None
        assert before.version is None or before.version != after.version

    def test_sinks_at_the_same_time(self, store: ShardStore) -> None:
        def write(index: int) -> None:
            sink = store.create(f"many/{index}.bin")
            for part in range(5):
                sink.write(pattern(100 * KIB, seed=10 * index + part))
            if index % 4 == 3:
                sink.abort()
            else:
                sink.commit()

        _at_once(8, write)
        assert _names(store, "many") == [f"many/{index}.bin" for index in (0, 1, 2, 4, 5, 6)]
        for index in (0, 1, 2, 4, 5, 6):
            expected = b"".join(pattern(100 * KIB, seed=10 * index + part) for part in range(5))
            assert store.read(f"many/{index}.bin") == expected
        assert self.leftovers(store) == []

    def test_a_sink_may_go_from_thread_to_thread(self, store: ShardStore) -> None:
        sink = store.create("threads.bin")
        for step in (lambda: sink.write(b"one"), lambda: sink.write(b"two"), sink.commit):
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
        assert store.read("threads.bin") == b"onetwo"

    # -- reading

    def test_open_and_seek(self, store: ShardStore) -> None:
        data = pattern(MIB + 100)
        _put(store, "seek.bin", data)
        with store.open("seek.bin") as file:
            assert file.seekable()
            assert file.read(10) == data[:10]
            assert file.seek(MIB) == MIB
            assert file.read(50) == data[MIB : MIB + 50]
            assert file.seek(-20, os.SEEK_END) == len(data) - 20
            assert file.read() == data[-20:]
            assert file.read(1) == b""
            file.seek(5)
            assert file.seek(5, os.SEEK_CUR) == 10
            assert file.tell() == 10
            assert file.read(MIB) == data[10 : 10 + MIB]

    def test_open_twice(self, store: ShardStore) -> None:
        _put(store, "twice.bin", b"0123456789")
        with store.open("twice.bin") as one, store.open("twice.bin") as two:
            assert one.read(4) == b"0123"
            assert two.read(2) == b"01"
            assert one.read(4) == b"4567"

    # -- listing

    def test_list_is_recursive_and_in_bytewise_order(self, store: ShardStore) -> None:
        names = ["b/z.tar", "b/Z.tar", "b/a-b/1.tar", "b/a/1.tar", "b/a/c/2.tar", "b/a.tar", "b/a0.tar"]
        names += ["b/é.tar", "b/shard-000010.tar", "b/shard-000009.tar"]
        for name in names:
            _put(store, name, name.encode())
        listed = list(store.list("b"))
        assert [info.name for info in listed] == sorted(names, key=str.encode)
        assert [info.size for info in listed] == [len(info.name.encode()) for info in listed]

    def test_list_ends_at_the_folder(self, store: ShardStore) -> None:
        for name in ("a/b/1.tar", "a/bc/2.tar", "a/b.tar", "a/b-c/3.tar", "ab/4.tar"):
            _put(store, name, b"x")
        assert _names(store, "a/b") == ["a/b/1.tar"]
        assert _names(store, "a/b/") == ["a/b/1.tar"]
        assert _names(store, "a") == ["a/b-c/3.tar", "a/b.tar", "a/b/1.tar", "a/bc/2.tar"]
        assert len(_names(store, "")) == 5

    def test_list_shows_hidden_names(self, store: ShardStore) -> None:
        _put(store, "d/.atdata/job.json", b"{}")
        assert _names(store, "d") == ["d/.atdata/job.json"]

    def test_list_and_stat_agree(self, store: ShardStore) -> None:
        _put(store, "d/one.tar", b"12345")
        assert list(store.list("d")) == [store.stat("d/one.tar")]

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names(self, store: ShardStore, name: str) -> None:
        data = name.encode()
        _put(store, "odd/" + name, data)
        assert _names(store, "odd") == ["odd/" + name]
        assert store.read("odd/" + name) == data
        with store.open("odd/" + name) as file:
            assert file.read() == data
        assert not store.put_if_absent("odd/" + name, b"other")
        store.delete("odd/" + name)
        self.assert_empty(store)

    @pytest.mark.parametrize("name", ["../outside.tar", "a/../../outside.tar", "a/./b.tar"])
    def test_a_name_cannot_leave_the_store(self, store: ShardStore, name: str) -> None:
        with pytest.raises(AtdataError):
            _put(store, name, b"x")
        with pytest.raises(AtdataError):
            store.put_if_absent(name, b"x")

    # -- what is not there

    def test_absent_names(self, store: ShardStore) -> None:
        _put(store, "there/one.tar", b"x")
        for name in ("absent.tar", "there/absent.tar", "absent/one.tar"):
            assert store.stat(name) is None
            assert store.read(name) is None
            store.delete(name)
            with pytest.raises(NotFoundError) as caught:
                store.open(name)
            assert caught.value.url == store.url(name)
        assert _names(store, "absent") == []
        assert _names(store, "") == ["there/one.tar"]

    def test_delete(self, store: ShardStore) -> None:
        _put(store, "a/one.tar", b"1")
        _put(store, "a/two.tar", b"2")
        store.delete("a/one.tar")
        store.delete("a/one.tar")
        assert store.stat("a/one.tar") is None
        assert _names(store, "a") == ["a/two.tar"]

    # -- small objects with a condition

    def test_put_if_absent(self, store: ShardStore) -> None:
        assert store.put_if_absent("a/job.json", b"first")
        assert not store.put_if_absent("a/job.json", b"second")
        assert store.read("a/job.json") == b"first"
        store.delete("a/job.json")
        assert store.put_if_absent("a/job.json", b"third")
        assert _names(store, "") == ["a/job.json"]

    def test_put_if_absent_has_one_winner(self, store: ShardStore) -> None:
        for turn in range(3):
            name = f"race/{turn}.json"
            won = _at_once(16, partial(_put_number, store, name))
            assert won.count(True) == 1
            assert store.read(name) == b"%d" % won.index(True)

    def test_replace_if_unchanged(self, store: ShardStore) -> None:
        assert store.put_if_absent("manifest.json", b"one")
        first = store.stat("manifest.json")
        assert first is not None
        assert first.version is not None
        assert store.replace_if_unchanged("manifest.json", b"two", first.version)
        assert not store.replace_if_unchanged("manifest.json", b"three", first.version)
        assert store.read("manifest.json") == b"two"
        store.delete("manifest.json")
        assert not store.replace_if_unchanged("manifest.json", b"four", first.version)
        assert store.read("manifest.json") is None

    def test_replace_if_unchanged_has_one_winner(self, store: ShardStore) -> None:
        assert store.put_if_absent("race.json", b"start")
        info = store.stat("race.json")
        assert info is not None
        version = info.version
        assert version is not None
        won = _at_once(8, lambda index: store.replace_if_unchanged("race.json", b"next %d" % index, version))
        assert won.count(True) == 1
        assert store.read("race.json") == b"next %d" % won.index(True)


class WriteShardsContract:
    """What ``write_shards`` of a built-in store does with samples. Override :meth:`store`."""

    @pytest.fixture
    def store(self) -> StoreBase:
        """An empty store."""
        pytest.fail("override the fixture 'store'")

    @staticmethod
    def samples(count: int) -> Iterator[dict[str, Any]]:
        """Samples whose fields are all bytes."""
        for index in range(count):
            yield {"__key__": f"{index:06d}", "txt": b"text %d" % index, "bin": pattern(100, seed=index)}

    def test_write_shards(self, store: StoreBase) -> None:
        urls = store.write_shards(self.samples(5), prefix="training/v1", maxcount=2)
        names = [f"training/v1/shard-{index:06d}.tar" for index in range(3)]
        assert urls == [store.url(name) for name in names]
        assert isinstance(urls, list)
        members: list[tuple[str, bytes]] = []
        for name, url in zip(names, urls, strict=True):
            with store.open(name) as file:
                assert _sha256(file) == urls.checksums[url]
                file.seek(0)
                members += _members(file)
        expected = [(sample["__key__"], sample) for sample in self.samples(5)]
        assert members == [(f"{key}.{field}", s[field]) for key, s in expected for field in ("bin", "txt")]
        assert store.stat("training/v1/manifest.json") is not None
        assert not [info.name for info in store.list("training/v1") if "/.atdata/" in info.name]

    def test_the_same_again_changes_nothing(self, store: StoreBase) -> None:
        first = store.write_shards(list(self.samples(5)), prefix="p", maxcount=2)
        versions = [info for info in store.list("p") if info.name.endswith(".tar")]
        assert store.write_shards(list(self.samples(5)), prefix="p", maxcount=2) == first
        assert [info for info in store.list("p") if info.name.endswith(".tar")] == versions

    def test_a_failing_source_leaves_no_dataset(self, store: StoreBase) -> None:
        def failing() -> Iterator[dict[str, Any]]:
            yield from self.samples(3)
            raise ConnectionError("the source broke")

        with pytest.raises((ConnectionError, AtdataError)):
            store.write_shards(failing(), prefix="broken", maxcount=2)
        assert store.stat("broken/manifest.json") is None


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(MIB):
        digest.update(block)
    return digest.hexdigest()


def _members(file: Any) -> list[tuple[str, bytes]]:
    """Names and contents of a tar, in order."""
    found = []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            found.append((member.name, content.read()))
    return found
