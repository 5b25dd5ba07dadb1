"""From references to URLs that WebDataset opens, and the forms in which they are printed.

What is printed may be a presigned URL, which is a secret: errors name shards by their store's own URLs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from atdata_cli.errors import NotFoundError
from atdata_cli.refs import parent, scheme
from atdata_cli.shards.reader import Located, Shard
from atdata_cli.stores.base import AbstractDataStore, StoreBase
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.registry import open_store

__all__ = ["ResolvedShard", "Resolver", "as_wds", "chosen_shards", "compress"]


@dataclass(frozen=True, slots=True)
class ResolvedShard:
    """A shard, and how WebDataset opens it.

    Attributes
    ----------
    shard : as it was found; its ``url`` is the store's own.
    url : what WebDataset opens; a secret if it is signed.
    end : when a signed URL stops working; None if it does not, or if nobody can tell.
    """

    shard: Shard
    url: str
    end: datetime | None = None


def chosen_shards(located: Located, split: str | None = None) -> Sequence[Shard]:
    """The shards of a dataset; those of one split only if it is given.

    Raises
    ------
    NotFoundError : it has no shards, or no such split.
    """
    if not located.shards:
        raise NotFoundError(
            "the dataset has no shards", url=located.url, hint="name the folder or prefix that holds the shards"
        )
    if split is None:
        return located.shards
    chosen = [shard for shard in located.shards if shard.split == split]
    if not chosen:
        names = list(dict.fromkeys(shard.split for shard in located.shards if shard.split is not None))
        hint = "it has " + ", ".join(names) if names else "it has no splits"
        raise NotFoundError(f"there are no shards of a split {split!r}", url=located.url, hint=hint)
    return chosen


class Resolver:
    """Asks stores for URLs that WebDataset opens.

    Parameters
    ----------
    files : knows how stores are reached.
    expires : seconds for which signed URLs shall be good; None leaves it to the store.
    """

    def __init__(self, files: StoreFiles, *, expires: int | None = None) -> None:
        self._options_for = files.options_for
        self._expires = expires
        self.warnings: list[str] = []

    def resolve(self, shards: Sequence[Shard]) -> list[ResolvedShard]:
        """The URLs of *shards*, in the same order; what a person should know of them is in ``warnings``."""
        resolved: dict[int, ResolvedShard] = {}
        for places in _by_store(shards).values():
            found = self._of_one_store([shards[place] for place in places])
            resolved.update(zip(places, found, strict=True))
        return [resolved[place] for place in range(len(shards))]

    def _of_one_store(self, shards: Sequence[Shard]) -> Iterator[ResolvedShard]:
        store = self._store(shards[0].url)
        canonical = [shard.url for shard in shards]
        if not isinstance(store, StoreBase):
            return (ResolvedShard(shard, store.read_url(shard.url)) for shard in shards)
        if self._expires is not None and store.expires is not None:
            store.expires = self._expires
        now = datetime.now(UTC).replace(microsecond=0)
        urls = store.read_urls(canonical)
        signed = store.expires is not None and not self._options_for(canonical[0]).anonymous and list(urls) != canonical
        end = self._end(store, now, canonical[0]) if signed else None
        return (ResolvedShard(shard, url, end) for shard, url in zip(shards, urls, strict=True))

    def _store(self, url: str) -> AbstractDataStore:
        # "run:7.tar" is a file if it exists, as where it was found.
        is_file = bool(scheme(url)) and "//" not in url and os.path.lexists(url)
        return open_store(f"./{url}" if is_file else url, self._options_for(url))[0]

    def _end(self, store: StoreBase, now: datetime, url: str) -> datetime | None:
        """When URLs that were signed *now* stop working."""
        asked = now + timedelta(seconds=store.expires or 0)
        session = store.session()
        if session is None or (session.end is not None and session.end >= asked):
            return asked
        where = parent(url)
        if session.end is None:
            self.warnings.append(
                f"{where}: the credentials are temporary and do not tell their end: the URLs end with them, "
                f"at {_utc(asked)} at the latest"
            )
            return None
        self.warnings.append(
            f"{where}: the URLs end at {_utc(session.end)}, with the credentials, and not at {_utc(asked)}"
        )
        return session.end.astimezone(UTC)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _by_store(shards: Sequence[Shard]) -> dict[str, list[int]]:
    """Places in *shards* of those that one store serves: a folder; in S3 a bucket."""
    found: dict[str, list[int]] = {}
    for place, shard in enumerate(shards):
        key = "/".join(shard.url.split("/")[:3]) if scheme(shard.url) == "s3" else parent(shard.url)
        found.setdefault(key, []).append(place)
    return found


def as_wds(urls: Sequence[str]) -> str:
    """One string that ``webdataset.WebDataset`` and ``atdata.Dataset`` both take for *urls*.

    Both expand braces; webdataset before that splits at ``::``, replaces ``${name}``, and looks at the scheme of
    the whole. A backslash takes the meaning from each of these, and goes when the braces are expanded.
    """
    if len(urls) > 1:
        return "{" + ",".join(_between_colons(_escape_in_braces(url)) for url in urls) + "}"
    text = _between_colons(_escape(urls[0]))
    # An IPv6 host, broken up like this, is none to urllib.parse, which must not see one then.
    return "\\" + text if "::" in urls[0] and text[0] != "\\" else text


def _escape(text: str) -> str:
    return re.sub(r"[\\{}]", r"\\\g<0>", text)


def _escape_in_braces(text: str) -> str:
    # braceexpand takes backslashes away at each level: a literal one has to survive two.
    return re.sub(r"[{},]", r"\\\g<0>", text.replace("\\", "\\" * 4))


def _between_colons(text: str) -> str:
    return re.sub("(?<=:):", r"\\:", text)


_NUMBER = re.compile(r"([0-9]{1,18})")


@dataclass(slots=True)
class _Run:
    """URLs one after another that differ in nothing but a number, which grows by one.

    Attributes
    ----------
    parts : of the first URL: text, number, text, …
    place : of the number in *parts*; 0 while there is only one URL.
    last : the number in the last URL, as text.
    """

    parts: list[str]
    place: int = 0
    last: str = ""

    def take(self, parts: list[str]) -> bool:
        """Make a URL part of the run, if it is the next one."""
        if len(parts) != len(self.parts):
            return False
        place = self.place or self._only_difference(parts)
        if not place or not _follows(parts[place], self.last or self.parts[place], first=self.parts[place]):
            return False
        if parts[:place] != self.parts[:place] or parts[place + 1 :] != self.parts[place + 1 :]:
            return False
        self.place, self.last = place, parts[place]
        return True

    def _only_difference(self, parts: list[str]) -> int:
        differing = [place for place, (a, b) in enumerate(zip(self.parts, parts, strict=True)) if a != b]
        return differing[0] if len(differing) == 1 and differing[0] % 2 else 0

    def pattern(self) -> str:
        """What stands for the run."""
        if not self.place:
            return _escape("".join(self.parts))
        before, after = "".join(self.parts[: self.place]), "".join(self.parts[self.place + 1 :])
        return f"{_escape(before)}{{{self.parts[self.place]}..{self.last}}}{_escape(after)}"


def _follows(number: str, last: str, *, first: str) -> bool:
    """Whether *number* is the next one in a brace range from *first* to *last*.

    braceexpand pads all of a range as soon as one end begins with a zero, so a padded one cannot grow wider.
    """
    if first[0] == "0" and first != "0":
        return len(number) == len(first) and int(number) == int(last) + 1
    return number == str(int(last) + 1)


def compress(urls: Iterable[str]) -> list[str]:
    """Brace patterns that stand for *urls*: expanded by ``braceexpand``, one after another, they give them back.

    Runs of numbers of one width (``shard-{000000..000009}.tar``), or without padding, become one pattern.
    """
    patterns: list[str] = []
    run: _Run | None = None
    for url in urls:
        parts = _NUMBER.split(url)
        if run is not None and run.take(parts):
            continue
        if run is not None:
            patterns.append(run.pattern())
        run = _Run(parts)
    return patterns if run is None else [*patterns, run.pattern()]
