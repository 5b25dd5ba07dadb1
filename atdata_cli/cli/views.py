"""What a person sees on a terminal; loaded only there."""

from __future__ import annotations

import os

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from atdata_cli.cli.inspect import field_rows, key_range, summary
from atdata_cli.cli.listing import entry_rows
from atdata_cli.cli.output import human_bytes
from atdata_cli.indexes.base import Entry
from atdata_cli.refs import printable, redact
from atdata_cli.shards.scan import DatasetInfo

__all__ = ["show_dataset"]

_SHOWN_SHARDS = 12


def show_dataset(info: DatasetInfo, entry: Entry | None = None) -> None:
    """A dataset at a glance: totals, fields, shards. Everything from the data goes in as plain text."""
    console = Console(highlight=False, no_color=bool(os.environ.get("NO_COLOR")))
    console.print(Panel(Group(_summary(info, entry)), title=Text(printable(redact(info.url)), "bold"), expand=False))
    console.print(_fields(info))
    console.print()
    console.print(_shards(info))


def _summary(info: DatasetInfo, entry: Entry | None) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, text in (*summary(info), *entry_rows(entry)):
        table.add_row(Text(label, "dim"), Text(printable(text), "bold" if label == "samples" else ""))
    return table


def _fields(info: DatasetInfo) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for header, justify in (("field", "left"), ("kind", "left"), ("samples", "right"), ("range", "left")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    table.add_column("example", overflow="ellipsis", no_wrap=True)
    for name, kind, samples, span, example in field_rows(info):
        table.add_row(Text(name, "bold cyan"), Text(kind), Text(samples), Text(span), Text(example, "green"))
    return table


def _shards(info: DatasetInfo) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("shard", overflow="fold")
    table.add_column("samples", justify="right")
    table.add_column("size", justify="right")
    table.add_column("keys", overflow="ellipsis", no_wrap=True)
    shown = info.shards if len(info.shards) <= _SHOWN_SHARDS else info.shards[: _SHOWN_SHARDS - 2]
    for shard in shown:
        table.add_row(
            Text(printable(redact(shard.url))),
            Text(f"{shard.samples:,}"),
            Text(human_bytes(shard.bytes)),
            Text(key_range(shard), "dim"),
        )
    if len(shown) < len(info.shards):
        table.add_row(Text(f"… {len(info.shards) - len(shown):,} more", "dim"))
    return table
