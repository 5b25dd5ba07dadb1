"""Reading what a dataset says of itself."""

from __future__ import annotations

from collections.abc import Sequence

from atdata_cli.errors import IntegrityError, NotFoundError
from atdata_cli.refs import join
from atdata_cli.shards.destination import STATE
from atdata_cli.shards.manifest import MANIFEST, Manifest
from atdata_cli.sources.base import Files, InputFile

__all__ = ["dataset_shards"]


def dataset_shards(files: Files, url: str) -> Sequence[InputFile] | None:
    """The shards of the dataset in a folder, all its splits one after another; None if the folder is no dataset.

    Raises
    ------
    IntegrityError : the dataset is unfinished, or its manifest damaged.
    """
    manifest = _read(files, join(url, MANIFEST))
    if manifest is None:
        if files.info(join(url, f"{STATE}/job.json")) is not None:
            raise IntegrityError("this dataset is unfinished", url=url, hint="run the write that began it again")
        return None
    if manifest.splits is None:
        return _inputs(url, "", manifest)
    inputs: list[InputFile] = []
    for split in manifest.splits:
        part = _read(files, join(url, f"{split}/{MANIFEST}"))
        if part is None:
            raise IntegrityError(f"the manifest of the split {split!r} is missing", url=url)
        inputs += _inputs(url, f"{split}/", part)
    return inputs


def _inputs(url: str, folder: str, manifest: Manifest) -> list[InputFile]:
    return [InputFile(folder + row.name, join(url, folder + row.name), row.bytes) for row in manifest.shards]


def _read(files: Files, url: str) -> Manifest | None:
    if files.info(url) is None:
        return None
    try:
        with files.open(url) as reader:
            text = reader.read()
    except NotFoundError:
        return None
    import json

    # Another program's manifest.json is no dataset of ours, and no error either.
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("format") != "atdata-manifest":
        return None
    return Manifest.loads(text, url=url)
