"""What a publisher says of a dataset: the options that ``publish`` shares with ``write``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atdata_cli.errors import UsageError

if TYPE_CHECKING:
    from atdata_cli.sources.base import Files

__all__ = ["said"]


def said(
    files: Files, *, description: str | None, tags: Sequence[str] | None, license_: str | None, metadata: str | None
) -> dict[str, Any]:
    """The options as fields of a ``Publication``; None for what is not said.

    Parameters
    ----------
    tags : ``--tag ''`` alone takes old ones away.
    metadata : file with a JSON object.
    """
    return {
        "description": description,
        "tags": None if tags is None else tuple(dict.fromkeys(tag for tag in tags if tag)),
        "license": license_,
        "metadata": _metadata(files, metadata),
    }


def _metadata(files: Files, path: str | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    import orjson

    with files.open(path) as reader:
        try:
            document = orjson.loads(reader.read())
        except orjson.JSONDecodeError as error:
            raise UsageError(f"the metadata is not JSON: {error}", url=path) from error
    if not isinstance(document, dict):
        raise UsageError("the metadata is no JSON object", url=path, hint='it must be {"NAME": VALUE, …}')
    return document
