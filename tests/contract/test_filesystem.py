"""The store over any fsspec file system."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from atdata_cli.stores.filesystem import FilesystemStore
from atdata_cli.stores.registry import open_store
from atdata_cli.stores.testing import StoreContract, WriteShardsContract


def in_memory() -> FilesystemStore:
    store, _ = open_store(f"memory://contract-{uuid.uuid4().hex}/x")
    assert isinstance(store, FilesystemStore)
    return store


def fresh_memory() -> FilesystemStore:
    from fsspec.implementations.memory import MemoryFileSystem

    class Fresh(MemoryFileSystem):
        """fsspec's keeps one tree for the whole process."""

        store: dict = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012
        cachable = False

    return FilesystemStore(Fresh(), protocol="memory")


class TestMemoryStore(StoreContract):
    large = 20 << 20

    @pytest.fixture
    def store(self) -> FilesystemStore:
        return fresh_memory()


class TestMemoryWriteShards(WriteShardsContract):
    @pytest.fixture
    def store(self) -> FilesystemStore:
        return fresh_memory()


class TestGenericDirectoryStore(StoreContract):
    """A file system that nothing special is known of, so that the generic way is taken."""

    large = 1 << 20

    @pytest.fixture
    def store(self, tmp_path: Path) -> FilesystemStore:
        from fsspec.implementations.dirfs import DirFileSystem
        from fsspec.implementations.local import LocalFileSystem

        return FilesystemStore(DirFileSystem(str(tmp_path), LocalFileSystem(auto_mkdir=True)), protocol="dir")
