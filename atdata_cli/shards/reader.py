"""Finding the shards of a dataset, and what its manifests say: for every command that reads.

A reader goes through the manifest, never through a listing, where there is one; what others wrote without one is
found by prefix, glob or braces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atdata_cli.errors import IntegrityError, NotFoundError, UsageError
from atdata_cli.refs import Reference, basename, expand_braces, is_glob, join, parent, scheme
from atdata_cli.shards.manifest import FORMAT, MANIFEST, STATE, Manifest, ShardRow, SplitRow
from atdata_cli.sources.base import Files, InputFile
from atdata_cli.sources.formats import format_of, is_tar

__all__ = ["Located", "Shard", "dataset_in", "dataset_shards", "locate", "read_manifest"]

_REQUESTS = 16  # at a time
_LARGEST_MANIFEST = 256 << 20  # a million shards are 200 MB


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to read.

    Attributes
    ----------
    url : how to open it.
    size : bytes as stored; None where the place does not tell.
    row : what the manifest says of it, if there is one.
    split : the split it belongs to.
    sha256 : of the stored bytes, hex, where an index tells it and there is no row.
    name : its path below the dataset's folder, or below the folder that was named; empty for a shard named itself.
    """

    url: str
    size: int | None
    row: ShardRow | None = None
    split: str | None = None
    sha256: str | None = None
    name: str = ""

    @property
    def expected_sha256(self) -> str | None:
        """What its bytes should hash to, as far as anybody said."""
        return self.sha256 if self.row is None else self.row.sha256

    @property
    def input(self) -> InputFile:
        """As a source takes it."""
        return InputFile(basename(self.url), self.url, self.size)


@dataclass(frozen=True, slots=True)
class Located:
    """What a reference stands for.

    Attributes
    ----------
    url : of the folder with the manifest, or the reference as typed.
    shards : in order.
    manifest : of the dataset, or the root one of its splits; None for shards that others made.
    parts : folder relative to ``url`` (``""``, or each split's with its slash) to its manifest.
    """

    url: str
    shards: Sequence[Shard]
    manifest: Manifest | None = None
    parts: Mapping[str, Manifest] = field(default_factory=dict)


def locate(reference: Reference, files: Files) -> Located:
    """Find the shards of a ``place``.

    Raises
    ------
    NotFoundError : there is nothing, or no shard.
    IntegrityError : the dataset is unfinished, or its manifest damaged.
    UsageError : it is no place, or a file that is neither shard nor manifest.
    """
    if reference.kind != "place":
        raise UsageError(
            f"this names {_ARTICLES[reference.kind]}, not a place with shards",
            url=reference.text,
            hint="name a folder, a URL prefix, a shard or a published dataset",
        )
    text = reference.text
    patterns = expand_braces(text)
    # Braces may be in a name, but not in a URL of the web, where asking is a request.
    info = None if len(patterns) > 1 and scheme(text) in ("http", "https") else files.info(text)
    if info is not None and info.kind == "folder":
        return _folder(text, files)
    if info is not None:
        return _file(text, info.size, files)
    urls = [url for one in patterns for url in (files.glob(one) if is_glob(one) else [one])]
    if urls == [text]:
        raise NotFoundError(
            "there is nothing by this name",
            url=text,
            hint="check the name; atdata-cli inspect @local or @HANDLE lists what is published",
        )
    if not urls:
        raise NotFoundError("nothing matches", url=text)
    return Located(text, [Shard(url, size) for url, size in zip(urls, _sizes(urls, files), strict=True)])


def _sizes(urls: Sequence[str], files: Files) -> list[int | None]:
    """The sizes of shards; far away many are asked for at a time, as each is a request."""

    def ask(url: str) -> int | None:
        found = files.info(url)
        if found is None:
            raise NotFoundError(
                "there is no such shard", url=url, hint="check the name; atdata-cli inspect FOLDER lists the shards"
            )
        return found.size

    first = ask(urls[0])  # also connects, once
    if "://" not in urls[0] or len(urls) == 1:
        return [first, *map(ask, urls[1:])]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_REQUESTS, "locate") as pool:
        return [first, *pool.map(ask, urls[1:])]


_ARTICLES = {"dataset": "a dataset in an index", "index": "an index", "entry": "an entry", "blob": "a blob in a PDS"}


def _file(url: str, size: int | None, files: Files) -> Located:
    if basename(url) == MANIFEST:
        folder = parent(url) or "./"
        located = dataset_in(folder, files)
        if located is None:
            raise IntegrityError(
                f'this is no dataset manifest: "format" is not "{FORMAT}"',
                url=url,
                hint="name the folder that holds the shards, or another manifest",
            )
        return located
    rows = format_of(basename(url))
    if rows is not None:
        raise UsageError(f"these are rows ({rows}), not a shard", url=url, hint=f"make shards: write {url} DEST")
    return Located(url, [Shard(url, size)])


def _folder(url: str, files: Files) -> Located:
    located = dataset_in(url, files)
    if located is not None:
        return located
    found = [(relative, info) for relative, info in files.walk(url) if info.kind == "file" and is_tar(relative)]
    if not found:
        hint = f"a shard's name ends in .tar; to make shards of what is there: write {url} DEST"
        raise NotFoundError("this folder holds no shards", url=url, hint=hint)
    found.sort(key=lambda item: item[0].encode("utf-8", "surrogateescape"))
    return Located(url, [Shard(info.url, info.size, name=relative) for relative, info in found])


def dataset_in(url: str, files: Files) -> Located | None:
    """The dataset whose manifest is in a folder; None if there is none.

    Raises
    ------
    IntegrityError : it is unfinished, or its manifest damaged.
    """
    manifest = read_manifest(files, join(url, MANIFEST))
    if manifest is None:
        if files.info(join(url, f"{STATE}/job.json")) is not None:
            raise IntegrityError("this dataset is unfinished", url=url, hint="run the command that began it again")
        return None
    if manifest.splits is None:
        parts = {"": manifest}
    else:
        parts = {f"{split}/": _part(files, url, split, row) for split, row in manifest.splits.items()}
    shards = [
        Shard(join(url, folder + row.name), row.bytes, row, part.split, name=folder + row.name)
        for folder, part in parts.items()
        for row in part.shards
    ]
    return Located(url, shards, manifest, parts)


def _part(files: Files, url: str, split: str, row: SplitRow) -> Manifest:
    part = read_manifest(files, join(url, row.manifest))
    if part is None:
        raise IntegrityError(
            f"the manifest of the split {split!r} is missing",
            url=url,
            hint="get it from where the dataset came from, or write the dataset again",
        )
    return part


def read_manifest(files: Files, url: str) -> Manifest | None:
    """The manifest at *url*; None if there is none, or if it is another program's ``manifest.json``.

    Raises
    ------
    IntegrityError : it is one of ours, but damaged, or of a version that this program does not know.
    """
    info = files.info(url)
    if info is None or info.kind != "file":
        return None
    if (info.size or 0) > _LARGEST_MANIFEST:
        raise IntegrityError(
            f"a manifest of {info.size} bytes is no manifest", url=url, hint="name the folder that holds the shards"
        )
    with files.open(url) as reader:
        text = reader.read()
    # Cheap and sure: our manifests name their format, and no other program's does.
    return Manifest.loads(text, url=url) if FORMAT.encode() in text else None


def dataset_shards(files: Files, url: str) -> Sequence[InputFile] | None:
    """The shards of the dataset in a folder, all its splits one after another; None if the folder is no dataset.

    Raises
    ------
    IntegrityError : the dataset is unfinished, or its manifest damaged.
    """
    located = dataset_in(url, files)
    if located is None:
        return None
    return [
        InputFile(folder + row.name, join(url, folder + row.name), row.bytes)
        for folder, part in located.parts.items()
        for row in part.shards
    ]
