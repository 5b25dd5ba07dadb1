"""Writes to a disk: whole, whatever the kernel takes at a time, and by the size that costs less."""

from __future__ import annotations

import os

import pytest

from atdata_cli.stores import diskwrites
from atdata_cli.stores.diskwrites import DiskWrites

CHUNK = bytes(range(256)) * (8 << 12)  # 8 MiB


class Kernel:
    """Takes writes, at a cost a byte that depends on their size."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self.sizes: list[int] = []
        self.dear: set[int] = set()
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(diskwrites.time, "thread_time", lambda: self.seconds)

    def write(self, descriptor: int, data: memoryview) -> int:
        self.sizes.append(len(data))
        self.seconds += len(data) * (10e-9 if len(data) in self.dear else 1e-9) + 1e-6
        return len(data)

    def share(self, size: int) -> float:
        """Of the bytes, how many came in writes of a size; forgets them."""
        share = self.sizes.count(size) * size / sum(self.sizes)
        self.sizes.clear()
        return share


@pytest.mark.parametrize("size", [0, 1, 1 << 20, len(CHUNK) - 1, len(CHUNK)])
def test_all_is_written(tmp_path, size):
    writes = DiskWrites()
    with open(tmp_path / "file", "wb", buffering=0) as file:
        for _ in range(40):
            writes.write(file.fileno(), memoryview(CHUNK)[:size])
    assert (tmp_path / "file").read_bytes() == CHUNK[:size] * 40


def test_short_writes(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:9999]))
    writes = DiskWrites()
    with open(tmp_path / "file", "wb", buffering=0) as file:
        for _ in range(3):
            writes.write(file.fileno(), memoryview(CHUNK))
    assert (tmp_path / "file").read_bytes() == CHUNK * 3


def test_the_cheaper_size_is_taken_as_soon_as_it_is_the_cheaper_one(monkeypatch):
    kernel, writes = Kernel(monkeypatch), DiskWrites()
    for _ in range(64):
        writes.write(0, memoryview(CHUNK))
    assert kernel.share(diskwrites._LARGE) > 0.97  # calls cost, too
    kernel.dear = {diskwrites._LARGE}
    for _ in range(64):
        writes.write(0, memoryview(CHUNK))
    assert kernel.share(diskwrites._SMALL) > 0.97
    kernel.dear = {diskwrites._SMALL}
    for _ in range(16):
        writes.write(0, memoryview(CHUNK))
    kernel.sizes.clear()
    for _ in range(64):
        writes.write(0, memoryview(CHUNK))
    assert kernel.share(diskwrites._LARGE) > 0.97
