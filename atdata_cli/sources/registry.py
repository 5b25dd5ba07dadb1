"""From what a person names to a source: finds what each name is, and builds the one source that reads them all."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from atdata_cli.errors import NotFoundError, UsageError
from atdata_cli.refs import (
    MANIFEST,
    basename,
    expand_braces,
    fixed_folder,
    in_index,
    is_glob,
    names_below,
    parent,
    refuse_unsafe,
)
from atdata_cli.sources.base import FileInfo, Files, InputFile, RowSource, Source
from atdata_cli.sources.formats import FORMATS, format_of, is_tar
from atdata_cli.sources.patterns import name_filter

__all__ = ["FILES", "KINDS", "TAR", "ReadOptions", "open_source"]

FILES = "files"
TAR = "tar"
KINDS = (FILES, TAR, *FORMATS)

DatasetShards = Callable[[str], Sequence[InputFile] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How sources are read.

    Attributes
    ----------
    kind : one of ``KINDS``; None to find out.
    include, exclude : globs for the files of folders.
    join, on : row file whose columns are added to files, and the column that names the file.
    null : a CSV cell that means null, besides an empty one.
    infer : whether CSV columns get types.
    types : of CSV columns, instead of inferred ones.
    fields : the columns that are wanted, so that others need not be read.
    """

    kind: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    join: str | None = None
    on: str | None = None
    null: str | None = None
    infer: bool = True
    types: Mapping[str, str] | None = None
    fields: tuple[str, ...] | None = None

    def check(self) -> None:
        """Find options that mean nothing.

        Raises
        ------
        UsageError : an unknown kind, or an option without its partner.
        """
        if self.kind is not None and self.kind not in KINDS:
            raise UsageError(f"--from {self.kind}: no such format", hint="one of " + ", ".join(KINDS))
        if (self.join is None) != (self.on is None):
            raise UsageError("--join FILE and --on FIELD go together")

    def identity(self) -> dict[str, Any]:
        """The options that change samples but neither names nor sizes of the input."""
        named = {"from": self.kind, "null": self.null, "on": self.on, "no_infer": not self.infer or None}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Found:
    """One name after expansion: a folder, a file or a stream.

    Attributes
    ----------
    inputs : what it consists of; nothing for a folder of files, which its source lists.
    name : of a file that a pattern matches: its path below the folder before the first wildcard.
    """

    url: str
    kind: str
    inputs: tuple[InputFile, ...] = ()
    name: str | None = None


def open_source(
    names: Sequence[str], files: Files, options: ReadOptions, *, dataset_shards: DatasetShards | None = None
) -> Source:
    """The source that reads all *names*, in their order.

    Parameters
    ----------
    names : folders, files, brace patterns, globs, at paths or URLs, or ``-``.
    files : access to them.
    options : how to read.
    dataset_shards : gives the shards of a folder that is a dataset, or None for any other folder; also those of a
        dataset in an index.

    Raises
    ------
    NotFoundError : a name, or a pattern, stands for nothing.
    UsageError : names of different kinds, or of a kind that cannot be told.
    """
    options.check()
    finder = _Finder(files, options, dataset_shards or (lambda url: None))
    found = [item for name in names for item in finder.find(name)]
    kinds = list(dict.fromkeys(item.kind for item in found))
    if len(kinds) > 1:
        raise _mixed(found, kinds)
    if kinds[0] == FILES:
        return _folder(found, files, options)
    if options.join is not None:
        raise UsageError("--join adds columns to the files of a folder", url=found[0].url)
    inputs = [item for group in found for item in group.inputs]
    if kinds[0] == TAR:
        from atdata_cli.sources.tars import TarSource

        return TarSource(files, inputs)
    return _rows(kinds[0], inputs, files, options)


class _Finder:
    def __init__(self, files: Files, options: ReadOptions, dataset_shards: DatasetShards) -> None:
        self._files = files
        self._options = options
        self._dataset_shards = dataset_shards

    def find(self, name: str) -> list[_Found]:
        """What one name stands for."""
        if name == "-":
            return [self._stream()]
        refuse_unsafe(name)
        if in_index(name) and not os.path.lexists(name):
            shards = self._dataset_shards(name)
            if shards is None:
                raise UsageError("names in an index cannot be read here", url=name, hint="name the shards themselves")
            return [_Found(name, TAR, tuple(shards))]
        info = self._files.info(name)
        if info is not None:
            return [self._one(name, info)]
        found = []
        patterns = expand_braces(name)
        for pattern in patterns:
            matches = self._files.glob(pattern) if is_glob(pattern) else [pattern]
            for url in matches:
                info = self._files.info(url)
                if info is None:
                    raise NotFoundError("there is no such file or folder", url=url, hint="check the path")
                found.append(self._one(url, info))
        if any(map(is_glob, patterns)):
            folders = [fixed_folder(pattern) if is_glob(pattern) else parent(pattern) or "./" for pattern in patterns]
            names = names_below([item.url for item in found], folders)
            found = [replace(item, name=below) for item, below in zip(found, names, strict=True)]
        if not found:
            raise NotFoundError(
                "nothing matches this pattern", url=name, hint="* and ? stay within a folder, ** goes below it"
            )
        return found

    def _stream(self) -> _Found:
        kind = self._options.kind
        if kind == FILES:
            raise UsageError(
                "standard input is one stream, not files",
                hint="pack them: tar -cf - FOLDER | atdata-cli write - DEST --from tar",
            )
        if kind is None:
            raise UsageError(
                "standard input needs --from FORMAT", hint="one of " + ", ".join(k for k in KINDS if k != FILES)
            )
        return _Found("-", kind, (InputFile("-", "-", None),))

    def _one(self, url: str, info: FileInfo) -> _Found:
        if info.kind == "folder":
            return self._folder(url)
        if basename(url) == MANIFEST and self._options.kind in (None, TAR):
            shards = self._dataset_shards(parent(url) or "./")
            if shards is not None:  # else it is another program's
                return _Found(url, TAR, tuple(shards))
        if info.kind != "file" and self._options.kind is None:
            raise UsageError(
                "this is a device, a pipe, or a link that leads nowhere",
                url=url,
                hint="say what a device or pipe holds with --from FORMAT",
            )
        kind = self._options.kind or _kind_of(basename(url))  # of an HTTP URL without its query
        return _Found(url, kind, (InputFile(basename(url), url, info.size),))

    def _folder(self, url: str) -> _Found:
        if self._options.kind != FILES:
            shards = self._dataset_shards(url)
            if shards is not None:
                return _Found(url, TAR, tuple(shards))
        kind = self._kind_inside(url) if _found_out(self._options) else self._options.kind or FILES
        if kind == FILES:
            return _Found(url, FILES)
        listed = list(self._listed(url))
        # Where no name tells the kind (part-00000), --from FORMAT speaks for all of them.
        listed = [item for item in listed if _kind_of(item[0]) == kind] or listed
        if not listed:
            raise NotFoundError(
                f"there are no {kind} files in this folder",
                url=url,
                hint="name a folder that has some, or leave out --from",
            )
        listed.sort(key=lambda item: item[0].encode("utf-8", "surrogateescape"))
        return _Found(url, kind, tuple(InputFile(relative, info.url, info.size) for relative, info in listed))

    def _kind_inside(self, url: str) -> str:
        """The one kind of all files in a folder; of a folder of plain files only the first is looked at here.

        Such folders are large, and their source lists them anyway: it checks the others.
        """
        kind = ""
        for relative, _ in self._listed(url):
            kind = kind or _kind_of(relative)
            if kind == FILES:
                break
            _check_kind(relative, kind, url)
        return kind or FILES

    def _listed(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        """The files of a folder that are wanted."""
        wanted = name_filter(self._options.include, self._options.exclude)
        for relative, info in self._files.walk(url):
            # The sources skip a dataset's own description, too.
            if info.kind == "file" and relative != MANIFEST and wanted(relative):
                yield relative, info


def _kind_of(name: str) -> str:
    return TAR if is_tar(name) else format_of(name) or FILES


def _check_kind(name: str, kind: str, folder: str) -> None:
    """Refuse a file of another kind than the others of its folder."""
    found = _kind_of(name)
    if found != kind:
        raise UsageError(
            f"the folder mixes {' and '.join(sorted((kind, found)))}: say what it is with --from FORMAT",
            url=folder,
            hint="--from files takes every file as it is; --join FILE --on FIELD adds a table's columns",
        )


def _mixed(found: Sequence[_Found], kinds: Sequence[str]) -> UsageError:
    examples = ", ".join(f"{next(item.url for item in found if item.kind == kind)} is {kind}" for kind in kinds)
    hint = "write them one kind at a time, or say what they are with --from FORMAT"
    if FILES in kinds and len(kinds) == 2:
        hint = "--join FILE --on FIELD adds a row file's columns to the files that it names"
    return UsageError(f"the sources are of different kinds: {examples}", hint=hint)


def _found_out(options: ReadOptions) -> bool:
    """Whether a folder's kind is told by the names in it, not by the options."""
    return options.kind is None and options.join is None


def _folder(found: Sequence[_Found], files: Files, options: ReadOptions) -> Source:
    from atdata_cli.sources.files import FolderSource

    folder = FolderSource(
        files,
        [item.url for item in found],
        names=_names(found),
        include=options.include,
        exclude=options.exclude,
        fields=options.fields if options.join is None else None,  # with --join, "json" is made here, not found
        check=partial(_check_kind, kind=FILES, folder=found[0].url) if _found_out(options) else None,
    )
    if options.join is None or options.on is None:
        return folder
    from atdata_cli.sources.join import JoinSource

    info = files.info(options.join)
    if info is None:
        raise NotFoundError("there is no such file", url=options.join, hint="check the path")
    kind = format_of(basename(options.join))
    if kind is None:
        raise UsageError("--join needs a row file: .jsonl, .csv, .tsv, .parquet, …", url=options.join)
    table = _rows(
        kind, [InputFile(basename(options.join), options.join, info.size)], files, replace(options, fields=None)
    )
    return JoinSource(folder, table, options.on)


def _names(found: Sequence[_Found]) -> list[str | None]:
    """What each file is called, as its key is made from that; None for a folder.

    The files that are named one by one share the deepest folder that holds all of them.
    """
    listed = [item.url for item in found if item.name is None and item.inputs]
    names = iter(names_below(listed))
    return [(item.name or next(names)) if item.inputs else None for item in found]


def _rows(kind: str, inputs: Sequence[InputFile], files: Files, options: ReadOptions) -> RowSource:
    module, _, name = FORMATS[kind].source.partition(":")
    source: Callable[..., RowSource] = getattr(importlib.import_module(module), name)
    if kind in ("csv", "tsv"):
        return source(files, inputs, null=options.null, infer=options.infer, types=options.types)
    if kind in ("parquet", "arrow"):
        return source(files, inputs, columns=options.fields)
    return source(files, inputs)
