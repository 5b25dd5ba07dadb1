"""Shard datasets into WebDataset tars in any store, and publish them.

The public names are imported on first use: ``import atdata_cli`` costs nothing.
"""

TYPE_CHECKING = False  # as typing's, which costs more to import than all that is here

if TYPE_CHECKING:
    from atdata_cli.errors import AtdataError, ExitCode
    from atdata_cli.indexes.datasets import inspect_dataset, open_source, read_manifest, verify_dataset
    from atdata_cli.shards.manifest import Manifest
    from atdata_cli.stores.base import AbstractDataStore
    from atdata_cli.stores.filesystem import FilesystemStore
    from atdata_cli.stores.http import HTTPStore
    from atdata_cli.stores.local import LocalStore
    from atdata_cli.stores.registry import open_store
    from atdata_cli.stores.s3 import S3DataStore

__version__ = "0.1.0"

__all__ = [
    "AbstractDataStore",
    "AtdataError",
    "ExitCode",
    "FilesystemStore",
    "HTTPStore",
    "LocalStore",
    "Manifest",
    "S3DataStore",
    "__version__",
    "inspect_dataset",
    "open_source",
    "open_store",
    "read_manifest",
    "verify_dataset",
]

_HOMES = {
    "AbstractDataStore": "stores.base",
    "AtdataError": "errors",
    "ExitCode": "errors",
    "FilesystemStore": "stores.filesystem",
    "HTTPStore": "stores.http",
    "LocalStore": "stores.local",
    "Manifest": "shards.manifest",
    "S3DataStore": "stores.s3",
    "inspect_dataset": "indexes.datasets",
    "open_source": "indexes.datasets",
    "open_store": "stores.registry",
    "read_manifest": "indexes.datasets",
    "verify_dataset": "indexes.datasets",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
