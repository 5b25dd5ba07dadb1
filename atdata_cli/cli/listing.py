"""What an index holds: a table for people, one line a dataset in a pipe, one document for programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atdata_cli.cli.output import Output, human_bytes
from atdata_cli.refs import Reference, printable, redact

if TYPE_CHECKING:
    from atdata_cli.indexes.base import Entry
    from atdata_cli.indexes.registry import IndexOptions

__all__ = ["entry_document", "entry_rows", "plain_json", "plain_records", "print_index", "record_lines"]


def print_index(output: Output, reference: Reference, indexes: IndexOptions) -> None:
    """All datasets of an index, by name and version."""
    from atdata_cli.indexes.registry import open_index

    entries = list(open_index(reference.authority, indexes).entries())
    if output.as_json:
        output.document({"index": f"@{reference.authority}", "datasets": [entry_document(entry) for entry in entries]})
    elif output.rich_stdout and entries:
        _show(reference.authority, entries)
    else:
        output.data(["\t".join(_cells(reference.authority, entry)) for entry in entries])
    for entry in entries:
        if entry.problem is not None:
            output.warn(f"{printable(_named(reference.authority, entry))}: {printable(entry.problem)}")
    if not entries:
        output.say("the index is empty")


def entry_document(entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    return {
        "uri": entry.uri,
        "key": entry.key,
        "name": entry.name,
        "version": entry.version,
        "samples": entry.samples,
        "bytes": entry.bytes,
        "encoding": entry.encoding,
        "split": entry.split,
        "description": entry.description,
        "tags": list(entry.tags),
        "license": entry.license,
        "metadata": plain_json(entry.metadata),
        "created_at": entry.created_at,
        "schema_ref": entry.schema_ref,
        "shards": [redact(shard.url) for shard in entry.shards],
        "problem": entry.problem,
    }


def plain_records(records: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Records that were written, or would be, for programs."""
    return [{"name": name, "record": plain_json(record)} for name, record in records]


def record_lines(records: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """The same for people: what each is called, and its content."""
    import json

    for name, record in records:
        yield f"{printable(name)}: {json.dumps(plain_json(record), indent=2)}"


def plain_json(value: Any) -> Any:
    """*value* without what JSON has no form for: bytes become base64, keys text."""
    if isinstance(value, Mapping):
        return {str(name): plain_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode("ascii")
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def entry_rows(entry: Entry | None) -> Iterator[tuple[str, str]]:
    """What an index says of a dataset besides what its manifest does: (label, text)."""
    if entry is None:
        return
    yield "entry", entry.uri
    told = {
        "description": entry.description,
        "tags": ", ".join(entry.tags),
        "license": entry.license,
        "published": entry.created_at,
    }
    yield from ((label, text) for label, text in told.items() if text)


def _named(authority: str, entry: Entry) -> str:
    return f"@{authority}/{entry.name}" + (f"@{entry.version}" if entry.version else "")


def _shards(entry: Entry) -> str:
    """How many, as far as they can be followed."""
    return "" if entry.problem is not None else str(len(entry.shards))


def _cells(authority: str, entry: Entry) -> Sequence[str]:
    """Of one line: reference, samples, shards, bytes, when, description; what nobody told is empty."""
    cells = [
        _named(authority, entry),
        "" if entry.samples is None else str(entry.samples),
        _shards(entry),
        "" if entry.bytes is None else str(entry.bytes),
        entry.created_at or "",
        entry.description or "",
    ]
    return [printable(cell) for cell in cells]


def _show(authority: str, entries: Sequence[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, no_color=bool(os.environ.get("NO_COLOR")))
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("dataset", overflow="fold")
    for header in ("samples", "shards", "size"):
        table.add_column(header, justify="right")
    table.add_column("published")
    table.add_column("description", overflow="ellipsis", no_wrap=True)
    for entry in entries:
        table.add_row(
            Text(printable(_named(authority, entry)), "bold cyan"),
            Text("" if entry.samples is None else f"{entry.samples:,}"),
            Text(_shards(entry)),
            Text("" if entry.bytes is None else human_bytes(entry.bytes)),
            Text(printable(entry.created_at or ""), "dim"),
            Text(printable(entry.description or "")),
        )
    console.print(table)
