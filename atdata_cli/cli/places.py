"""Where a command may write."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from atdata_cli.errors import UsageError
from atdata_cli.refs import local_path, scheme

if TYPE_CHECKING:
    from atdata_cli.shards.protocols import ShardStore
    from atdata_cli.stores.registry import StoreOptions

__all__ = ["check_apart", "check_dest", "writable_store"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_dest(dest: str) -> str:
    """DEST itself, if shards can go there.

    Raises
    ------
    UsageError : it is no folder and no URL prefix.
    """
    if dest == "-":
        raise UsageError(
            "DEST is a folder or a URL prefix, not standard output", hint="name a folder, or URL://…/PREFIX"
        )
    if dest.lower().endswith((".tar", ".tar.gz", ".tgz")):
        raise UsageError(
            "DEST is a folder or a URL prefix, not a tar", url=dest, hint="shards get their names from this program"
        )
    # Everything that is printed names DEST, one URL a line.
    if _CONTROL.search(dest):
        raise UsageError("DEST holds control characters", url=dest)
    if scheme(dest) in ("", "file"):
        path = local_path(dest)
        if os.path.exists(path) and not os.path.isdir(path):
            raise UsageError(
                "DEST is a file; a folder or a URL prefix is needed", url=dest, hint="name a folder, or remove the file"
            )
    return dest


def check_apart(source: str, dest: str) -> None:
    """Refuse to write into what is read: the shards would become part of the next run's input.

    Raises
    ------
    UsageError : *dest* is *source*, or inside it.
    """
    source_scheme, dest_scheme = (scheme(place).removeprefix("file") for place in (source, dest))
    if source == "-" or source_scheme != dest_scheme:
        return
    if source_scheme:
        inner, outer = dest.rstrip("/") + "/", source.rstrip("/") + "/"
    else:
        source, dest_path = local_path(source), local_path(dest)
        if not os.path.isdir(source):
            return
        inner, outer = (os.path.join(os.path.realpath(path), "") for path in (dest_path, source))
    if inner.startswith(outer):
        raise UsageError("DEST is inside SOURCE", url=dest, hint="choose a DEST outside it")


def writable_store(dest: str, stores: StoreOptions, *, doing: str) -> tuple[ShardStore, str]:
    """The store of *dest* and the prefix in it.

    Parameters
    ----------
    doing : what cannot be done where this fails, as a participle.

    Raises
    ------
    UsageError : it cannot be changed shard by shard.
    """
    from atdata_cli.shards.protocols import ShardStore
    from atdata_cli.stores.registry import open_store

    store, prefix = open_store(dest, stores)
    if not isinstance(store, ShardStore) or not store.writable:
        raise UsageError(f"nothing can be {doing} in this store", url=dest)
    return store, prefix
