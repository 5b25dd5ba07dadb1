"""What a person sees on a terminal; loaded only there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from atdata_cli.cli.inspect import FIELD_COLUMNS, SHARD_COLUMNS, field_rows, middle_cut, shard_row, summary
from atdata_cli.cli.listing import entry_rows
from atdata_cli.indexes.base import Entry
from atdata_cli.refs import printable, redact
from atdata_cli.shards.scan import DatasetInfo

__all__ = ["show_dataset"]

_SHOWN_SHARDS = 12
_GAP = 2  # between columns
_SHORTEST_NAME = 30
_SHORTEST_CELL = 12  # of the column that is cut; with less it says nothing
_NUMBERS = {"samples", "size"}
# What goes first where room is short.
_FIELDS_DROPPED = ("example", "samples", "range", "schema", "kind")
_SHARDS_DROPPED = ("keys", "size", "samples")


def show_dataset(info: DatasetInfo, entry: Entry | None = None) -> None:
    """A dataset at a glance: totals, fields, shards. Everything from the data goes in as plain text."""
    console = Console(highlight=False, no_color=bool(os.environ.get("NO_COLOR")))
    console.print(Panel(Group(_summary(info, entry)), title=Text(printable(redact(info.url)), "bold"), expand=False))
    console.print(_fields(info, console.width))
    console.print()
    console.print(_shards(info, console.width))


def _summary(info: DatasetInfo, entry: Entry | None) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, text in (*summary(info), *entry_rows(entry)):
        table.add_row(Text(label, "dim"), Text(printable(text), "bold" if label == "samples" else ""))
    return table


def _fields(info: DatasetInfo, width: int) -> Table:
    styles = {"field": "bold cyan", "example": "green"}
    return _table(FIELD_COLUMNS, list(field_rows(info)), _FIELDS_DROPPED, styles, width)


def _shards(info: DatasetInfo, width: int) -> Table:
    shown = info.shards if len(info.shards) <= _SHOWN_SHARDS else info.shards[: _SHOWN_SHARDS - 2]
    table = _table(SHARD_COLUMNS, list(map(shard_row, shown)), _SHARDS_DROPPED, {"keys": "dim"}, width)
    if len(shown) < len(info.shards):
        table.add_row(Text(f"… {len(info.shards) - len(shown):,} more", "dim"))
    return table


def _table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    dropped: Sequence[str],
    styles: Mapping[str, str],
    width: int,
) -> Table:
    """A table of one line a row: where room is short the last column is cut, then columns go.

    Parameters
    ----------
    headers, rows : the cells; names, which are first, lose their middle if they need more than half of the line.
    dropped : headers of the columns that go, in this order; the first one is the last column.
    styles : header to the style of its cells.
    width : of the terminal.
    """
    longest = max(_SHORTEST_NAME, width // 2)
    rows = [(middle_cut(name, longest), *others) for name, *others in rows]
    columns = dict(zip(headers, zip(headers, *rows, strict=True), strict=True))
    widths = {header: max(map(cell_len, cells)) for header, cells in columns.items()}
    last = dropped[0]
    for header in dropped:
        room = width - sum(widths[name] + _GAP for name in columns if name != last)
        if room >= (min(widths[last], _SHORTEST_CELL) if last in columns else -_GAP):
            break
        del columns[header]
    table = Table(box=None, header_style="dim", padding=(0, _GAP, 0, 0), pad_edge=False)
    for header in columns:
        justify: JustifyMethod = "right" if header in _NUMBERS else "left"
        most = min(widths[header], room) if header == last else None
        style = styles.get(header, "")
        table.add_column(header, justify=justify, style=style, overflow="ellipsis", no_wrap=True, max_width=most)
    for row in rows:
        table.add_row(*(Text(cell) for header, cell in zip(headers, row, strict=True) if header in columns))
    return table
