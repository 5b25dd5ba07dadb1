"""The store on disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from atdata_cli.stores.local import LocalStore
from atdata_cli.stores.testing import StoreContract, WriteShardsContract


class TestLocalStore(StoreContract):
    large = 20 << 20

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store")

    def leftovers(self, store: LocalStore) -> list[str]:
        return store.leftovers("")


class TestLocalWriteShards(WriteShardsContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store")


class TestRelativeLocalStore(StoreContract):
    """A store at a relative root, as ``write photos/ out/`` makes it."""

    large = 1 << 20

    @pytest.fixture
    def store(self, tmp_path: Path):
        with contextlib.chdir(tmp_path):
            yield LocalStore("out")
