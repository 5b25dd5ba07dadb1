"""Listing folders for the files that become members, and sorting out the names that cannot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from atdata_cli.errors import NotFoundError, UsageError
from atdata_cli.refs import MANIFEST, basename
from atdata_cli.samples.keys import check_field, check_key, split_name
from atdata_cli.sources.base import FileInfo, Files, Reject
from atdata_cli.sources.fieldcheck import examples, renamed, splits_unexpectedly

__all__ = ["Listing", "PlannedFile"]


class PlannedFile(NamedTuple):
    """One file that is to be a member; tuples compare in the order of the members.

    Attributes
    ----------
    order : the first root that has the key.
    key, field : what webdataset makes of its path, which relative to the root is ``KEY.FIELD``.
    root : index of the root that it is in.
    size : bytes.
    """

    order: int
    key: str
    field: str
    root: int
    size: int

    @property
    def name(self) -> str:
        """The path relative to the root."""
        return f"{self.key}.{self.field}"


class _Field(NamedTuple):
    """What all files of one field have in common.

    Attributes
    ----------
    is_selected : they are asked for.
    is_odd : its beginning is hardly that of an extension.
    reason : why they cannot be members.
    """

    is_selected: bool
    is_odd: bool
    reason: str | None


class Listing:
    """Collects the files of one root after another.

    A million files are a million tuples and keys, nothing else: paths and URLs are made from them when
    needed.

    Parameters
    ----------
    files : how places are listed.
    wanted : which relative paths are taken.
    fields : only these fields; None for all.
    check : given a relative path, raises if it does not belong; it is asked once for each field.

    Attributes
    ----------
    found : the files, unordered.
    problems : the others that should be members, with the reason why they cannot.
    bad_keys : keys of problems: samples that would be incomplete.
    folders : how many of the roots are folders.
    several : whether there is more than one root.
    """

    def __init__(
        self,
        files: Files,
        wanted: Callable[[str], bool],
        fields: Sequence[str] | None,
        check: Callable[[str], None] | None = None,
        *,
        several: bool,
    ) -> None:
        self.found: list[PlannedFile] = []
        self.problems: list[Reject] = []
        self.bad_keys: set[str] = set()
        self.folders = 0
        self._files = files
        self._wanted = wanted
        self._fields = None if fields is None else frozenset(fields)
        self._check = check
        self._met: dict[str, _Field] = {}
        # What a root's files' URLs begin with, and the few URLs that are not simply that and the path.
        self._bases: list[str] = []
        self._odd_urls: dict[tuple[int, str], str] = {}
        # Which root had a key first matters only where there are several.
        self.several = several
        self._first_root: dict[str, int] = {}
        self._hidden = 0
        self._others: list[str] = []
        self._manifests: list[str] = []

    def add(self, root: str, name: str | None = None) -> None:
        """List one root, a folder or a file.

        Parameters
        ----------
        name : of a file, the relative path that its key is made from; by default its basename.

        Raises
        ------
        NotFoundError : it is not there.
        UsageError : it is neither file nor folder.
        """
        info = self._files.info(root)
        if info is None:
            raise NotFoundError("no such file or folder", url=root, hint="check the path")
        if info.kind == "file":
            name = name or basename(info.url)
            self._bases.append(info.url.removesuffix(name))
            self._add_file(name, info)
        elif info.kind == "folder":
            self._add_folder(root)
        else:
            hint = "read a pipe as standard input: -  with --from FORMAT"
            raise UsageError("a source must be a file or a folder", url=root, hint=hint)

    def fields(self) -> Collection[str]:
        """The fields of all files that were looked at."""
        return self._met.keys()

    def url(self, file: PlannedFile) -> str:
        """How a file is opened."""
        if self._odd_urls:
            odd = self._odd_urls.get((file.root, file.name))
            if odd is not None:
                return odd
        return f"{self._bases[file.root]}{file.key}.{file.field}"

    def problem(self, file: PlannedFile, reason: str) -> None:
        """Note that a listed file cannot be used after all."""
        self._reject(self.url(file), reason, file.key)

    def warnings(self) -> list[str]:
        """What was passed over."""
        lines = []
        if self._hidden:
            what = "file or folder was" if self._hidden == 1 else "files and folders were"
            lines.append(f"{self._hidden} hidden {what} skipped")
        if self._others:
            number = len(self._others)
            what = (
                "device, pipe or socket was skipped:"
                if number == 1
                else "devices, pipes or sockets were skipped, such as"
            )
            lines.append(f"{number} {what} {examples(self._others)}")
        if self._manifests:
            lines.append(f"{examples(self._manifests)} was skipped, as a dataset's own description")
        return lines

    def _add_folder(self, root: str) -> None:
        self.folders += 1
        index = len(self._bases)
        self._bases.append(root)
        base: str | None = None
        hidden = self._files.hidden()
        for name, info in self._files.walk(root):
            if info.kind == "folder" or not self._wanted(name):
                continue
            if name == MANIFEST:
                self._manifests.append(info.url)
                continue
            if info.kind == "other":
                self._others.append(info.url)
                continue
            if base is None:
                base = self._bases[index] = info.url.removesuffix(name)
            if info.url != base + name:
                self._odd_urls[index, name] = info.url
            self._add_named(index, name, info)
        self._hidden += self._files.hidden() - hidden

    def _add_file(self, name: str, info: FileInfo) -> None:
        root = len(self._bases) - 1
        if self._bases[root] + name != info.url:  # an HTTP URL with a query, or with encoded characters
            self._odd_urls[root, name] = info.url
        if self._wanted(name):
            self._add_named(root, name, info)

    def _add_named(self, root: int, name: str, info: FileInfo) -> None:
        split = split_name(name)
        if split is None:
            if self._check is not None:
                self._check(name)
            # With --fields nobody asked for a file that has none.
            if self._fields is None:
                self._reject(info.url, _no_field(name), None)
            return
        key, field = split
        met = self._met.get(field)
        if met is None:
            met = self._met[field] = self._meet(field, name)
        if not met.is_selected:
            return
        reason = check_key(key) or met.reason
        if reason is None and info.size is None:
            reason = "its size is not known without reading it: copy it to a disk first"
        elif reason is None and met.is_odd:
            reason = f"its name splits into key {key!r} and field {field!r}: rename it to {renamed(name)!r}"
        elif reason is None and not info.readable:
            reason = "it cannot be read: permission denied; check owner and mode"
        if reason is not None or info.size is None:
            self._reject(info.url, reason or "", key)
            return
        order = self._first_root.setdefault(key, root) if self.several else 0
        # As PlannedFile(…) does it, without a call in Python: of a million files that is seconds.
        self.found.append(tuple.__new__(PlannedFile, (order, key, field, root, info.size)))

    def _meet(self, field: str, name: str) -> _Field:
        """What is to be known of a field, at the first of its files: most folders have few fields."""
        if self._check is not None:
            self._check(name)
        is_odd = splits_unexpectedly(field)
        # ``IMG.0001.jpg`` is meant by ``--fields jpg``, and must not vanish without a word.
        is_selected = (
            self._fields is None or field in self._fields or (is_odd and field.rpartition(".")[2] in self._fields)
        )
        return _Field(is_selected, is_odd, check_field(field))

    def _reject(self, where: str, reason: str, key: str | None) -> None:
        self.problems.append(Reject(where, reason, key=key))
        if key is not None:
            self.bad_keys.add(key)


def _no_field(name: str) -> str:
    base = name.rpartition("/")[2]
    if base.endswith(".") or base.startswith("."):
        return f"its name gives no key and field: rename it, or pass --exclude {base!r}"
    return f"its name has no extension: rename it to something like {name + '.txt'!r}, or --exclude {base!r}"
