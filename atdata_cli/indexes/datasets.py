"""Datasets by reference, for Python code: what the commands do, as functions."""

from __future__ import annotations

from typing import Any

from atdata_cli.errors import NotFoundError
from atdata_cli.indexes.lookup import lookup, source_shards
from atdata_cli.shards.manifest import Manifest
from atdata_cli.shards.reader import Located
from atdata_cli.shards.scan import DatasetInfo, inspect
from atdata_cli.shards.verify import VerifyReport, verify
from atdata_cli.sources.base import Source
from atdata_cli.sources.registry import ReadOptions
from atdata_cli.sources.registry import open_source as open_names
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.registry import StoreOptions

__all__ = ["inspect_dataset", "open_source", "read_manifest", "verify_dataset"]


def open_source(*names: str, stores: StoreOptions | None = None, **reading: Any) -> Source:
    """A dataset for ``write_shards`` from what the command line takes: folders, files, globs, at paths or URLs.

    Parameters
    ----------
    *names : folders, files, brace patterns, globs, names in an index.
    stores : how stores are reached.
    **reading : fields of :class:`atdata_cli.sources.registry.ReadOptions`.

    Raises
    ------
    NotFoundError, UsageError : see :func:`atdata_cli.sources.registry.open_source`.
    """
    files = StoreFiles(stores)
    return open_names(names, files, ReadOptions(**reading), dataset_shards=lambda name: source_shards(name, files))


def read_manifest(ref: str, *, stores: StoreOptions | None = None) -> Manifest:
    """The manifest of a dataset.

    Parameters
    ----------
    ref : its folder or prefix, or the ``manifest.json`` itself, or its name in an index.
    stores : how stores are reached.

    Raises
    ------
    NotFoundError : there is no manifest.
    IntegrityError : it is damaged, or the dataset unfinished.
    """
    located, _ = _locate(ref, stores)
    if located.manifest is None:
        raise NotFoundError("there is no manifest", url=ref, hint="inspect_dataset reads shards without one")
    return located.manifest


def inspect_dataset(ref: str, *, stores: StoreOptions | None = None) -> DatasetInfo:
    """What a dataset holds: from its manifest, or from the headers of its tars where there is none.

    Parameters
    ----------
    ref : folder, prefix, manifest, shard, glob or brace range, at a path or URL; or a name in an index.
    stores : how stores are reached.

    Raises
    ------
    NotFoundError : there is nothing.
    IntegrityError : the dataset is unfinished, or a tar damaged.
    """
    return inspect(*_locate(ref, stores))


def verify_dataset(ref: str, *, stores: StoreOptions | None = None, jobs: int | None = None) -> VerifyReport:
    """Check every byte of a dataset; lists everything that is wrong.

    Parameters
    ----------
    ref : as for :func:`inspect_dataset`.
    stores : how stores are reached.
    jobs : processes; None for the cores.

    Raises
    ------
    NotFoundError : there is nothing.
    IntegrityError : the dataset is unfinished, or its manifest cannot be read.
    """
    return verify(*_locate(ref, stores), jobs=jobs)


def _locate(ref: str, stores: StoreOptions | None) -> tuple[Located, StoreFiles]:
    files = StoreFiles(stores)
    return lookup(ref, files).located, files
