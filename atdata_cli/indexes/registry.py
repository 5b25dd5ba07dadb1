"""From the authority of a reference (``local``, a handle, a DID) to its index; imported at first use."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from atdata_cli.errors import UsageError
from atdata_cli.refs import LOCAL_INDEX
from atdata_cli.stores.registry import StoreOptions

if TYPE_CHECKING:
    from atdata_cli.indexes.base import Index
    from atdata_cli.shards.transfer import Stages  # imported, it would bring webdataset into every command

__all__ = ["IndexOptions", "open_index"]

LOCAL = "atdata_cli.indexes.sqlite:LocalIndex"
ATMOSPHERE = "atdata_cli.indexes.atmosphere:AtmosphereIndex"


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What the command line says about indexes.

    Attributes
    ----------
    file : of the local index; by default the one that the environment names.
    stores : how the stores of the shards are reached.
    progress : told what is going on, and how far it is.
    """

    file: str | None = None
    stores: StoreOptions = field(default_factory=StoreOptions)
    progress: Stages | None = None


def open_index(authority: str, options: IndexOptions | None = None) -> Index:
    """The index of an authority; nothing is asked of a network before its first use.

    An index's class is called as ``cls(authority, options)``.

    Raises
    ------
    UsageError : this version has no such index.
    """
    target = LOCAL if authority == LOCAL_INDEX else ATMOSPHERE
    module, _, name = target.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UsageError(
            "this version knows no index but the local one", url=f"@{authority}", hint="write @local/NAME"
        ) from error
    return cast("Index", getattr(loaded, name)(authority, options or IndexOptions()))
