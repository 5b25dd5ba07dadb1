"""Shards on disk: whole or not there, whatever happens."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from atdata_cli.errors import AtdataError, AuthError, NotFoundError, UsageError
from atdata_cli.shards.protocols import ShardStore
from atdata_cli.stores.base import AbstractDataStore, ShardUrls
from atdata_cli.stores.local import LocalStore, _absolute, _locked


def put(store, name, data):
    sink = store.create(name)
    sink.write(data)
    sink.commit()


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def test_it_is_a_store(store):
    assert isinstance(store, ShardStore)
    assert isinstance(store, AbstractDataStore)
    assert store.supports_streaming()
    assert store.read_url("out/a.tar") == "out/a.tar"
    assert pickle.loads(pickle.dumps(store)).root == store.root


def test_urls_stay_as_typed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert LocalStore().url("out/a.tar") == "out/a.tar"
    assert LocalStore("./x/").url("a.tar") == "./x/a.tar"
    assert LocalStore("../x").url("a.tar") == "../x/a.tar"
    put(LocalStore(), "out/a.tar", b"1")
    assert files(tmp_path) == ["out", "out/a.tar"]


def test_written_shards_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    urls = _absolute(ShardUrls(["out/a.tar"], {"out/a.tar": "00"}))
    assert urls == [f"{tmp_path}/out/a.tar"]
    assert urls.checksums == {f"{tmp_path}/out/a.tar": "00"}
    with pytest.raises(UsageError, match="absolute"):
        LocalStore().write_shards([], prefix="/data/x")


def test_nothing_is_visible_before_commit(store, tmp_path):
    sink = store.create("out/deep/a.tar")
    sink.write(b"12")
    sink.write(memoryview(bytearray(b"345")))
    assert list(store.list("")) == []
    assert store.stat("out/deep/a.tar") is None
    sink.commit()
    sink.abort()  # too late to matter
    assert store.read("out/deep/a.tar") == b"12345"
    assert files(tmp_path) == ["out", "out/deep", "out/deep/a.tar"]


def test_a_commit_replaces(store):
    put(store, "a", b"1")
    before = store.stat("a")
    put(store, "a", b"2")
    assert store.read("a") == b"2"
    assert store.stat("a").version != before.version


def test_abort_leaves_nothing(store, tmp_path):
    sink = store.create("out/deep/a.tar")
    sink.write(b"1")
    sink.abort()
    sink.abort()
    assert files(tmp_path) == []


def test_abort_leaves_what_others_made(store, tmp_path):
    (tmp_path / "out").mkdir()
    first, second = store.create("out/x/a"), store.create("out/x/b")
    first.abort()
    second.commit()
    assert files(tmp_path) == ["out", "out/x", "out/x/b"]
    store.create("out/a").abort()
    assert (tmp_path / "out").is_dir()


def test_abort_after_a_failed_commit(store, tmp_path):
    sink = store.create("out/a.tar")
    sink.write(b"1")
    (tmp_path / "out" / "a.tar").mkdir()
    with pytest.raises(UsageError, match="folder"):
        sink.commit()
    sink.abort()
    assert files(tmp_path) == ["out", "out/a.tar"]


def test_a_full_disk(store, tmp_path):
    sink = store.create("out/a.tar")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, sink._descriptor)
    os.close(full)
    with pytest.raises(AtdataError, match="No space left") as error:
        sink.write(b"1")
    assert "free some space" in error.value.hint
    assert error.value.url == f"{tmp_path}/out/a.tar"
    sink.abort()
    assert files(tmp_path) == []


def test_short_writes_are_continued(store):
    reader, writer = os.pipe()
    os.set_blocking(reader, True)
    sink = store.create("a")
    os.dup2(writer, sink._descriptor)
    os.close(writer)
    data = bytes(range(256)) * 4096
    received = bytearray()

    def drain():
        while chunk := os.read(reader, 1000):
            received.extend(chunk)

    thread = threading.Thread(target=drain)
    thread.start()
    sink.write(data)
    sink.abort()
    thread.join()
    os.close(reader)
    assert received == data


def test_files_and_folders_in_the_way(store, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for act in (store.create, lambda name: store.put_if_absent(name, b"")):
        with pytest.raises(UsageError, match="a file is where a folder is needed") as error:
            act("file/deep/a")
        assert error.value.url == f"{tmp_path}/file/deep/a"
        with pytest.raises(UsageError, match="it is a folder"):
            act("folder")
    with pytest.raises(UsageError, match="it is a folder"):
        store.read("folder")
    assert store.read("file/a") is None
    assert store.stat("file/a") is None
    assert store.stat("folder") is None
    assert list(store.list("file")) == []
    assert not store.replace_if_unchanged("file/a", b"", "v")
    store.delete("file/a")
    assert files(tmp_path) == ["file", "folder"]


def test_a_folder_without_permission(tmp_path):
    """In a child process that is not root: root may write everywhere."""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    tmp_path.chmod(0o755)
    # The user changes last: interpreter, modules and the folders above may be root's alone.
    code = """
        import os
        from atdata_cli.errors import AuthError
        from atdata_cli.stores.local import LocalStore
        if os.getuid() == 0:
            os.setgid(65534), os.setuid(65534)
        store = LocalStore("closed")
        for act in (lambda: store.create("x/a"), lambda: store.put_if_absent("a", b"")):
            try:
                act()
            except AuthError as error:
                print(error.message, error.url)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    closed.chmod(0o755)
    assert done.stdout.splitlines() == [
        "cannot write to it: permission denied closed/x/a",
        "cannot write to it: permission denied closed/a",
    ], done.stderr


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "a\0b"])
def test_names_do_not_escape(store, name):
    acts = (
        store.create,
        store.open,
        store.read,
        store.stat,
        store.delete,
        lambda name: list(store.list("x/" + name)),
    )
    for act in acts[: 5 if name.startswith("/") else 6]:
        with pytest.raises(UsageError):
            act(name)


def test_an_empty_name_is_no_file(store):
    with pytest.raises(UsageError):
        store.create("")


def test_missing(store):
    assert store.read("a") is None
    assert store.stat("a") is None
    store.delete("a")
    with pytest.raises(NotFoundError):
        store.open("a")


def test_list_is_bytewise_and_recursive(store, tmp_path):
    names = ["a", "a-b", "a.tar", "a/x", "a0", "é", "z", ".atdata/job.json", "日", "A", "b/c/d", "b/c.e"]
    names.remove("a")
    for name in names:
        put(store, name, name.encode())
    raw = os.fsdecode(b"caf\xe9")
    put(store, raw, b"latin-1")
    store.create("under-way.tar")
    found = list(store.list(""))
    assert [item.name for item in found] == sorted([*names, raw], key=os.fsencode)
    assert all(item.size == len(store.read(item.name)) for item in found)
    assert [item.version for item in found] == [store.stat(item.name).version for item in found]
    assert [item.name for item in store.list("b/")] == ["b/c.e", "b/c/d"]
    assert [item.name for item in store.list("b")] == ["b/c.e", "b/c/d"]
    assert list(store.list("nothing")) == []


def test_list_follows_links_but_not_loops(store, tmp_path):
    put(store, "real/a", b"1")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "loop").symlink_to("..")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe")
    assert [item.name for item in store.list("")] == ["link/a", "real/a"]


def test_put_if_absent(store, tmp_path):
    assert store.put_if_absent(".atdata/job.json", b"1")
    assert not store.put_if_absent(".atdata/job.json", b"2")
    assert store.read(".atdata/job.json") == b"1"
    assert files(tmp_path) == [".atdata", ".atdata/job.json"]


def test_state_folders_go_with_their_last_file(tmp_path):
    LocalStore(tmp_path).put_if_absent("x/.atdata/shards/0.json", b"1")
    store = LocalStore(tmp_path)  # another run
    store.delete("x/.atdata/shards/0.json")
    assert files(tmp_path) == ["x"]


def _race(root, number, barrier, results):
    barrier.wait()
    if LocalStore(root).put_if_absent("deep/name", f"{number:04}".encode() * 1000):
        results.put(number)


def test_sixteen_processes_race_for_a_name(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    barrier, results = context.Barrier(16), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, number, barrier, results)) for number in range(16)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    winner = results.get()
    assert results.empty()
    assert LocalStore(tmp_path).read("deep/name") == f"{winner:04}".encode() * 1000
    assert files(tmp_path) == ["deep", "deep/name"]


def test_replace_if_unchanged(store, tmp_path):
    assert not store.replace_if_unchanged("a", b"1", "0-0-0")
    put(store, "a", b"1")
    version = store.stat("a").version
    assert store.replace_if_unchanged("a", b"2", version)
    assert not store.replace_if_unchanged("a", b"3", version)
    assert store.read("a") == b"2"
    assert files(tmp_path) == ["a"]


def test_versions_never_repeat(store):
    put(store, "a", b"0")
    seen = {store.stat("a").version}
    for number in range(200):
        assert store.replace_if_unchanged("a", str(number % 10).encode(), store.stat("a").version)
        seen.add(store.stat("a").version)
    assert len(seen) == 201


def test_threads_that_replace_lose_no_update(store, tmp_path):
    put(store, "count", b"0")

    def add():
        for _ in range(20):
            while True:
                version = store.stat("count").version
                value = int(store.read("count"))
                # The content must belong to the version, as a reader of a manifest makes sure too.
                if store.stat("count").version != version:
                    continue
                if store.replace_if_unchanged("count", str(value + 1).encode(), version):
                    break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("count") == b"80"
    assert files(tmp_path) == ["count"]


KILLED = """
    import os, sys, time
    from atdata_cli.stores.local import LocalStore, _locked
    store = LocalStore(sys.argv[1])
    sink = store.create("out/a.tar")
    sink.write(b"half")
    with _locked(store.url("out/manifest.json")):
        print("ready", flush=True)
        time.sleep(1000)
"""


def test_a_killed_run_holds_nothing_and_can_be_cleaned_up(store, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        assert store.leftovers("") == []  # it still runs
        assert store.clean("") == []
        child.send_signal(signal.SIGKILL)
    leftovers = store.leftovers("out")
    assert len(leftovers) == 2
    assert leftovers[1] == "out/.manifest.json.lock"
    assert leftovers[0].startswith("out/.a.tar.")
    assert list(store.list("")) == []
    put(store, "out/manifest.json", b"1")
    assert store.replace_if_unchanged("out/manifest.json", b"2", store.stat("out/manifest.json").version)
    (tmp_path / "out" / ".film.part").write_bytes(b"of another program")
    assert store.clean("out/") == leftovers[:1]  # the lock was taken over
    assert files(tmp_path) == ["out", "out/.film.part", "out/manifest.json"]


def test_a_lock_is_removed_after_an_error_too(tmp_path):
    with pytest.raises(AuthError), _locked(str(tmp_path / "a")):
        raise AuthError("no")
    assert files(tmp_path) == []


def test_long_names(store):
    name = "x" * 251 + ".tar"
    put(store, name, b"1")
    assert store.read(name) == b"1"
    with pytest.raises(AtdataError, match="too long") as error:
        put(store, "x" * 256, b"1")
    assert error.value.hint == "shorten the name"


def test_many_sinks_that_give_up_beside_one_that_does_not(tmp_path):
    """Folders are removed and made again under each other's feet, by two stores as by two processes."""
    stores = [LocalStore(tmp_path), LocalStore(tmp_path)]
    errors = []

    def work(store, number):
        try:
            for turn in range(100):
                sink = store.create(f"out/deep/{number}-{turn}")
                sink.abort()
        except AtdataError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(stores[number % 2], number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
