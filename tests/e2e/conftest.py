"""The installed command and the reference library, end to end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgpack
import webdataset

from tests.cli.conftest import Cli, cli, photos, rows_file

__all__ = ["Cli", "cli", "members", "packed", "photos", "rows_file"]


def members(urls: Iterable[str | Path]) -> list[tuple[str, dict[str, bytes]]]:
    """(key, field to content) of all samples in shards, as webdataset reads them."""
    dataset = webdataset.WebDataset([str(url) for url in urls], shardshuffle=False, empty_check=False)
    return [(sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")}) for sample in dataset]


def packed(folder: Path) -> list[dict]:
    """All packed samples of a written folder, in order."""
    return [msgpack.unpackb(fields["msgpack"]) for _, fields in members(sorted(folder.glob("*.tar*")))]
