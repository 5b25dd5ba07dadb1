"""Shards as checked streams: what is handed out, and what a broken read does."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, TemporaryError
from atdata_cli.retry import Retry
from atdata_cli.shards import transfer
from atdata_cli.shards.reader import Shard
from atdata_cli.shards.transfer import CHUNK, ShardReader, TransferProgress, copy_shards, in_threads
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.testing import pattern

DATA = pattern(3 * CHUNK + 17)
SHA256 = hashlib.sha256(DATA).hexdigest()


class BreakingFiles(StoreFiles):
    """Files whose reads fail at given offsets, once each; what is behind them may change then."""

    def __init__(self, *breaks: int, seekable: bool = True) -> None:
        super().__init__()
        self.breaks = list(breaks)
        self.opened: list[tuple[int, int]] = []  # offset of each opened reader's first and last byte read
        self.seeks = seekable

    def open(self, url: str) -> BinaryIO:
        files = self

        class Breaking(io.BytesIO):
            def __init__(self) -> None:
                super().__init__(Path(url).read_bytes())
                self.began: int | None = None

            def seekable(self) -> bool:
                return files.seeks

            def read(self, size: int | None = -1, /) -> bytes:
                at = self.tell()
                if files.breaks and files.breaks[0] <= at:
                    files.breaks.pop(0)
                    raise TemporaryError("the connection broke", url=url)
                data = super().read(size)
                if self.began is None:
                    self.began = at
                    files.opened.append((at, 0))
                files.opened[-1] = (self.began, self.tell())
                return data

        return Breaking()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.net, "retry", lambda: Retry(retries=2, first=0.001))


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "a.tar").write_bytes(DATA)
    return str(tmp_path / "a.tar")


def test_all_bytes_and_their_hash(path):
    progress = TransferProgress()
    with ShardReader(Shard(path, len(DATA), sha256=SHA256), StoreFiles(), progress=progress) as stream:
        assert stream.read(10) == DATA[:10]
        assert stream.sha256 is None
        assert b"".join(stream) == DATA[10:]
        assert stream.sha256 == SHA256
        assert stream.read(1) == b""
    assert progress.bytes == len(DATA)


@pytest.mark.parametrize("size", [len(DATA), None])
@pytest.mark.parametrize("data", [b"", b"x"])
def test_small_shards_of_known_and_unknown_size(tmp_path, size, data):
    (tmp_path / "a.tar").write_bytes(data)
    stream = ShardReader(Shard(str(tmp_path / "a.tar"), None if size is None else len(data)), StoreFiles())
    assert stream.read() == data
    assert stream.sha256 == hashlib.sha256(data).hexdigest()


def test_the_last_bytes_of_a_wrong_shard_are_not_handed_out(path):
    stream = ShardReader(Shard(path, len(DATA), sha256="0" * 64), StoreFiles())
    taken: list[bytes] = []
    with pytest.raises(IntegrityError, match=f"its SHA-256 is {SHA256}, and should be 0000") as caught:
        taken.extend(stream)
    assert b"".join(taken) == DATA[: 3 * CHUNK]
    assert caught.value.url == path


@pytest.mark.parametrize(
    ("size", "words"), [(len(DATA) - 1, "larger than"), (2 * CHUNK, "larger than"), (len(DATA) + 1, "ends after")]
)
def test_sizes_that_are_wrong(path, size, words):
    stream = ShardReader(Shard(path, size, sha256=SHA256), StoreFiles())
    taken: list[bytes] = []
    with pytest.raises(IntegrityError, match=words):
        taken.extend(stream)
    assert sum(map(len, taken)) < size


def test_a_broken_read_goes_on_where_it_broke(path):
    files = BreakingFiles(CHUNK, 2 * CHUNK, 2 * CHUNK)
    stream = ShardReader(Shard(path, len(DATA), sha256=SHA256), files)
    assert stream.read() == DATA
    assert [began for began, _ in files.opened] == [0, CHUNK, 2 * CHUNK]


@pytest.mark.parametrize(("sha256", "seekable"), [(None, True), (SHA256, False)])
def test_without_checksum_or_seeks_the_beginning_is_read_and_compared_again(path, sha256, seekable):
    files = BreakingFiles(2 * CHUNK, seekable=seekable)
    stream = ShardReader(Shard(path, len(DATA), sha256=sha256), files)
    assert stream.read() == DATA
    assert [began for began, _ in files.opened] == [0, 0]


def test_a_shard_that_is_replaced_while_its_read_is_broken(path):
    files = BreakingFiles(CHUNK)
    stream = ShardReader(Shard(path, len(DATA)), files)
    stream.read(CHUNK)
    Path(path).write_bytes(pattern(len(DATA), seed=1))
    with pytest.raises(TemporaryError, match="replaced"):
        stream.read()


def test_a_source_that_stays_broken(path):
    with pytest.raises(TemporaryError, match="broke"):
        ShardReader(Shard(path, len(DATA)), BreakingFiles(0, 0, 0, 0)).read()
    with pytest.raises(NotFoundError):
        ShardReader(Shard(path + "x", None), StoreFiles()).read()


def test_rewind(path):
    progress = TransferProgress()
    stream = ShardReader(Shard(path, len(DATA), sha256=SHA256), StoreFiles(), progress=progress)
    stream.read(CHUNK)
    stream.rewind()
    assert stream.read() == DATA
    stream.rewind()
    assert stream.read() == DATA
    assert progress.bytes == len(DATA)


def test_results_are_in_order_and_all_are_counted(tmp_path):
    shards = []
    for number in range(20):
        (tmp_path / f"{number}.tar").write_bytes(pattern(1000 + number, seed=number))
        shards.append(Shard(str(tmp_path / f"{number}.tar"), 1000 + number))
    progress = TransferProgress()
    results = copy_shards(shards, StoreFiles(), lambda s: (s.index, len(s.read())), jobs=5, progress=progress)
    assert results == [(number, 1000 + number) for number in range(20)]
    assert (progress.shards, progress.bytes) == (20, sum(1000 + number for number in range(20)))
    assert copy_shards([], StoreFiles(), lambda s: s.read()) == []


def test_the_first_error_ends_what_is_under_way_and_begins_nothing_more(path):
    shards = [Shard(path, len(DATA)) for _ in range(50)]
    begun = []
    waiting = threading.Event()

    def put(stream: ShardReader) -> None:
        begun.append(stream.index)
        if stream.index == 1:
            waiting.wait(10)
            raise AtdataError("the store is full")
        stream.read(1)
        waiting.set()
        while stream.read(1):  # until the stream gives up
            pass

    with pytest.raises(AtdataError, match="the store is full"):
        copy_shards(shards, StoreFiles(), put, jobs=2)
    assert sorted(begun) == [0, 1]


def test_a_put_that_leaves_bytes_is_a_mistake_of_ours(path):
    with pytest.raises(AssertionError, match="not all"):
        copy_shards([Shard(path, len(DATA))], StoreFiles(), lambda stream: stream.read(5))


def test_in_threads_is_bounded():
    running, most, lock = 0, 0, threading.Lock()

    def work(index: int, item: int, stop: threading.Event) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return item * 2

    assert in_threads(work, range(100), 3) == [2 * item for item in range(100)]
    assert most <= 3
