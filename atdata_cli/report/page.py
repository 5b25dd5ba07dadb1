"""The page: one HTML file that opens from disk, needs no script and asks no network for anything."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atdata_cli import __version__
from atdata_cli.errors import MissingExtraError, from_os_error
from atdata_cli.refs import basename, printable, redact
from atdata_cli.samples.describe import described_kind, described_range
from atdata_cli.shards.reader import Located
from atdata_cli.shards.scan import DatasetInfo, ShardInfo
from atdata_cli.sources.base import Files
from atdata_cli.words import count, human_bytes

try:
    import jinja2

    from atdata_cli.report.gather import Card, Gathered, Problem, gather
except ModuleNotFoundError as error:
    if error.name not in ("jinja2", "PIL"):
        raise
    raise MissingExtraError("the HTML report", extra="report") from error

from atdata_cli.report.charts import MOST_BARS, Chart, bars, columns, cut, histogram, number

__all__ = ["Problem", "render", "write_report"]

# More rows than this help nobody and only make the page large.
_MOST_FIELDS = 100
_MOST_SHARDS = 200
_MOST_PROBLEMS = 200
_MOST_COLUMNS = 40  # shards drawn one by one; sizes of more become a histogram
_LONGEST_SCHEMA = 60_000
_LONGEST_EXAMPLE = 200
_TABLE_FIELDS = 12  # samples with at most so many short fields are shown as a table


def write_report(
    info: DatasetInfo, located: Located, files: Files, path: str, *, problems: Sequence[Problem] | None = None
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path : where to.
    problems : what a check of every byte found; None if there was none.

    Raises
    ------
    AtdataError : the file cannot be written.
    """
    page = render(info, located, files, problems=problems).encode("utf-8")
    try:
        _write_file(path, page)
    except OSError as error:
        raise from_os_error(error, path, doing="write to") from error


def render(info: DatasetInfo, located: Located, files: Files, *, problems: Sequence[Problem] | None = None) -> str:
    """The page as text; see :func:`write_report`. The same dataset makes the same page."""
    return _render(_page(info, gather(info, located, files), problems))


def _write_file(path: str, page: bytes) -> None:
    target = os.path.realpath(path)
    if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
        with open(target, "wb") as file:  # a pipe or a device has no "whole"; a folder fails
            file.write(page)
        return
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(page)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _render(page: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("atdata_cli.report"),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(page)


def _visible(value: Any) -> Any:
    """Every text that the template puts out, made visible, before it is escaped: no controls, no reordering."""
    if not isinstance(value, str) or value.isprintable() or hasattr(value, "__html__"):
        return value
    return "\n".join(printable(line) for line in value.expandtabs(4).splitlines())


@dataclass(frozen=True, slots=True)
class _Tile:
    """One number to see first."""

    label: str
    value: str
    note: str = ""


def _page(info: DatasetInfo, found: Gathered, problems: Sequence[Problem] | None) -> dict[str, Any]:
    """What the template shows."""
    name = info.name or basename(redact(info.url).rstrip("/")) or "dataset"
    every = [*(problems or ()), *found.findings]
    return {
        "version": __version__,
        "name": name,
        "url": redact(info.url),
        "badges": list(_badges(info)),
        "tiles": list(_tiles(info)),
        "checked": problems is not None,
        "problems": [_problem(problem) for problem in every[:_MOST_PROBLEMS]],
        "more_problems": max(0, len(every) - _MOST_PROBLEMS),
        "notes": list(_notes(info)),
        "read": found.samples,
        "read_shards": found.shards,
        "all_read": found.samples == info.samples,
        "total": info.samples,
        "cards": [{"sample": card, "shard": basename(redact(card.shard))} for card in found.cards],
        "shown_samples": _shown_samples(info, found),
        "compact": _compact(found.cards),
        "table": _table(found.cards),
        "fields": [_field(name, known, info) for name, known in list(info.fields.items())[:_MOST_FIELDS]],
        "more_fields": max(0, len(info.fields) - _MOST_FIELDS),
        "charts": list(_value_charts(found)),
        "size_charts": list(_size_charts(info, found)),
        "shards": [_shard(shard) for shard in info.shards[:_MOST_SHARDS]],
        "more_shards": max(0, len(info.shards) - _MOST_SHARDS),
        "splits": info.splits or {},
        "schema": cut(json.dumps(info.schema, indent=2, ensure_ascii=False), _LONGEST_SCHEMA),
    }


def _badges(info: DatasetInfo) -> Iterator[str]:
    yield f"{info.encoding} encoding"
    if info.compression:
        yield f"{info.compression} compressed"
    yield "counted from the tars' headers" if info.scanned else "from its manifest"


def _tiles(info: DatasetInfo) -> Iterator[_Tile]:
    shards = len(info.shards)
    yield _Tile("samples", f"{info.samples:,}", f"{human_bytes(info.payload / max(info.samples, 1))} on average")
    yield _Tile("shards", f"{shards:,}", f"{human_bytes(info.bytes / max(shards, 1))} on average")
    yield _Tile("stored", human_bytes(info.bytes), f"{human_bytes(info.payload)} of payload")
    if info.overhead is not None:
        yield _Tile("tar overhead", f"{info.overhead:.1%}", "headers and padding")
    yield _Tile(
        "fields", f"{len(info.fields):,}", ", ".join(list(info.fields)[:4]) + (" …" if len(info.fields) > 4 else "")
    )
    for split, samples in list((info.splits or {}).items())[:6]:
        yield _Tile(f"split {cut(split, 20)}", f"{samples:,}", f"{samples / max(info.samples, 1):.1%} of the samples")


def _notes(info: DatasetInfo) -> Iterator[str]:
    """What is not wrong with the dataset, but not in it either."""
    if info.rejected:
        yield f"{count(info.rejected, 'sample')} could not be written and were left out when it was made."
    if info.skipped:
        yield f"{count(info.skipped, 'member')} in the tars belong to no sample and were skipped."


def _shown_samples(info: DatasetInfo, found: Gathered) -> str:
    shards = len({card.shard for card in found.cards})
    if len(found.cards) == info.samples:
        return f"All {info.samples:,}." if info.samples > 1 else "The only one."
    return f"{len(found.cards)} of {info.samples:,}, from {count(shards, 'shard')}."


def _table(cards: Sequence[Card]) -> dict[str, Any] | None:
    """Samples as rows, if all that they hold are a few short values."""
    fields = list(dict.fromkeys(shown.name for card in cards for shown in card.previews))
    if len(fields) > _TABLE_FIELDS or not all(shown.small for card in cards for shown in card.previews):
        return None
    rows = []
    for card in cards:
        texts = {shown.name: shown.text for shown in card.previews}
        rows.append({"key": card.key, "cells": [texts.get(name, "") for name in fields]})
    other = {shown.name for card in cards for shown in card.previews if not shown.number and shown.text != "null"}
    return {"fields": fields, "rows": rows, "numbers": [name not in other for name in fields]}


def _compact(cards: Sequence[Card]) -> bool:
    """Whether the gallery can be narrow: tiny pictures with hardly anything beside them."""
    return all(
        shown.small or (shown.picture is not None and shown.picture.pixels) for card in cards for shown in card.previews
    ) and all(len(card.previews) <= 3 for card in cards)


def _problem(problem: Problem) -> dict[str, str]:
    return {
        "kind": problem.kind,
        "shard": basename(redact(problem.shard or "")),
        "key": cut(problem.key or ""),
        "offset": "" if problem.offset is None else f"{problem.offset:,}",
        "detail": cut(redact(problem.detail), 400),
    }


def _field(name: str, known: Mapping[str, Any], info: DatasetInfo) -> dict[str, str]:
    nulls = known.get("nulls", 0)
    required = info.schema.get("required")  # given by --schema, it may be any JSON
    return {
        "name": name,
        "kind": described_kind(known),
        "samples": f"{known.get('samples', 0):,}" + (f" (and {nulls:,} null)" if nulls else ""),
        "range": described_range(known),
        "required": "yes" if isinstance(required, list) and name in required else "no",
    }


def _shard(shard: ShardInfo) -> dict[str, str]:
    return {
        "name": (f"{shard.split}/" if shard.split else "") + basename(redact(shard.url)),
        "samples": f"{shard.samples:,}",
        "size": human_bytes(shard.bytes),
        "first": cut(shard.first_key),
        "last": cut(shard.last_key),
        "sha256": shard.sha256 or "",
    }


def _value_charts(found: Gathered) -> Iterator[dict[str, Any]]:
    for name, column in found.columns:
        chart = column.chart()
        if chart is not None:
            yield {
                "field": name,
                "chart": chart,
                "nulls": column.nulls,
                "missing": 0 if "." in name else found.samples - column.samples,
            }


def _size_charts(info: DatasetInfo, found: Gathered) -> Iterator[Chart]:
    if len(info.shards) > _MOST_COLUMNS:
        yield histogram("Shard sizes", [shard.bytes for shard in info.shards], what="size", show=human_bytes)
        yield histogram("Samples in a shard", [shard.samples for shard in info.shards], what="samples")
    elif info.shards:
        names = [_shard(shard)["name"] for shard in info.shards]
        sizes = [shard.bytes for shard in info.shards]
        samples = [shard.samples for shard in info.shards]
        yield _per_shard("Size of each shard", names, sizes, human_bytes)
        yield _per_shard("Samples in each shard", names, samples, number)
    if found.sizes:
        yield histogram("Size of a sample", found.sizes, what="size", show=human_bytes)
    yield from _field_sizes(info, found)


def _per_shard(title: str, names: Sequence[str], values: Sequence[int], show: Callable[[Any], str]) -> Chart:
    low, high = min(values), max(values)
    summary = f"{show(high)} each." if low == high else f"{show(low)} to {show(high)}."
    if len(values) == 1:
        summary = f"One shard: {show(high)}."
    rows = list(zip(names, values, strict=True))
    return columns(title, rows, summary=summary, heads=("shard", title.partition(" ")[0].lower()), show=show)


def _field_sizes(info: DatasetInfo, found: Gathered) -> Iterator[Chart]:
    """Which fields take the room: exact for members, as headers tell; measured on what was read for packed samples."""
    if info.encoding == "files":
        rows = [(name, known.get("bytes", 0)) for name, known in info.fields.items()]
        of = "of all samples"
    else:
        rows = [(name, column.stored) for name, column in found.columns if name in info.fields]
        of = f"of the {count(found.samples, 'sample')} read"
    rows.sort(key=lambda row: (-row[1], row[0]))
    if rows:
        shown = rows[:MOST_BARS]
        if rows[MOST_BARS:]:
            shown.append((f"{len(rows) - MOST_BARS:,} others", sum(size for _, size in rows[MOST_BARS:])))
        summary = f"Bytes in each field, {of}."
        yield bars("Size of each field", shown, summary=summary, heads=("field", "size"), show=human_bytes)
