"""Any file system of fsspec as a store."""

import pickle
import threading

import fsspec
import pytest

from atdata_cli.errors import AtdataError, NotFoundError, UsageError
from atdata_cli.shards.protocols import ShardStore
from atdata_cli.stores.base import AbstractDataStore
from atdata_cli.stores.filesystem import FilesystemStore, fs_errors


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    if request.param == "memory":
        fs = fsspec.filesystem("memory")
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]
        return FilesystemStore(fs, protocol="memory")
    fs = fsspec.filesystem("dir", path=str(tmp_path), fs=fsspec.filesystem("file"))
    return FilesystemStore(fs, protocol="local", base="local://")


def put(store, name, data):
    sink = store.create(name)
    sink.write(data[:1])
    sink.write(memoryview(bytearray(data[1:])))
    sink.commit()
    sink.abort()


def everything(store):
    return sorted(path.lstrip("/") for path in store.fs.find(store.fs.root_marker))


def test_it_is_a_store(store):
    assert isinstance(store, ShardStore)
    assert isinstance(store, AbstractDataStore)
    assert store.atomic
    assert pickle.loads(pickle.dumps(store)).base == store.base


def test_write_read_list(store):
    for name in ["b/c/d", "b/c.e", "a", ".atdata/job.json", "é"]:
        put(store, name, b"12345")
    assert store.read("b/c/d") == b"12345"
    names = [item.name for item in store.list("")]
    assert names == sorted(["b/c/d", "b/c.e", "a", ".atdata/job.json", "é"], key=str.encode)
    assert [item.name for item in store.list("b/")] == ["b/c.e", "b/c/d"]
    assert list(store.list("a")) == []
    assert list(store.list("nothing")) == []
    for item in store.list(""):
        assert item == store.stat(item.name)
        assert item.size == 5
        assert item.version
    with store.open("a") as first, store.open("a") as second:
        assert first.read(2) == b"12"
        assert second.read() == b"12345"
        assert first.seek(-1, 2) == 4
        assert first.read() == b"5"


def test_nothing_is_visible_before_commit_or_after_abort(store):
    sink = store.create("out/a.tar")
    sink.write(b"123")
    assert list(store.list("")) == []
    assert store.stat("out/a.tar") is None
    sink.abort()
    sink.abort()
    assert everything(store) == []
    put(store, "out/a.tar", b"old")
    sink = store.create("out/a.tar")
    sink.write(b"new")
    assert store.read("out/a.tar") == b"old"
    sink.commit()
    assert store.read("out/a.tar") == b"new"
    assert everything(store) == ["out/a.tar"]


def test_missing(store):
    assert store.read("a") is None
    assert store.stat("a") is None
    store.delete("a")
    with pytest.raises(NotFoundError):
        store.open("a")


def test_a_folder_in_the_way(store):
    put(store, "x/a", b"12")
    with pytest.raises(UsageError, match="folder"):
        store.create("x")
    with pytest.raises(UsageError):
        store.create("")
    assert store.stat("x") is None


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b"])
def test_names_do_not_escape(store, name):
    for act in (store.create, store.open, store.read, store.stat, store.delete):
        with pytest.raises(UsageError):
            act(name)


def test_claims_and_replacements(store):
    winners = []
    barrier = threading.Barrier(16)

    def race(number):
        barrier.wait()
        if store.put_if_absent("x/name", str(number).encode()):
            winners.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert store.read("x/name") == str(winners[0]).encode()
    version = store.stat("x/name").version
    assert store.replace_if_unchanged("x/name", b"other", version)
    assert not store.replace_if_unchanged("x/name", b"third", version)
    assert not store.replace_if_unchanged("x/none", b"third", version)
    assert store.read("x/name") == b"other"


def test_a_claim_below_a_file(store):
    put(store, "a", b"12")
    with pytest.raises(UsageError, match="a file is where a folder is needed"):
        store.put_if_absent("a/b", b"1")


def test_what_webdataset_cannot_open_is_said(store):
    with pytest.raises(UsageError, match="WebDataset cannot open") as error:
        store.read_url(store.url("a"))
    assert error.value.hint


def test_atomic_is_said_only_where_it_is_known():
    assert not FilesystemStore(fsspec.filesystem("memory"), protocol="gs").atomic


def test_errors_of_libraries_become_ours():
    with pytest.raises(AtdataError, match="cannot read it: boom") as error, fs_errors("sftp://h/x", "read"):
        raise RuntimeError("boom")
    assert error.value.url == "sftp://h/x"
    assert isinstance(error.value.__cause__, RuntimeError)
