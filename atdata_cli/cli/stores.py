"""``atdata-cli stores``: the kinds of places that datasets can be in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from atdata_cli.cli import options as opt
from atdata_cli.cli.output import Output
from atdata_cli.refs import printable, redact

if TYPE_CHECKING:
    from atdata_cli.stores.known import Kind

__all__ = ["stores"]

_COLUMNS = ("scheme", "ready", "read", "write", "stream", "sign", "atomic", "store")
_ANSWERS = {True: "yes", False: "no", None: "?"}


def stores(
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """List the kinds of places that datasets can be in, and what each can do and needs.

    Columns: whether it is ready or which package to install; whether datasets are read from it, written to it, read as
    a stream, opened by others with a signed or public URL; and whether no half-written file is ever seen.
    """
    from atdata_cli.stores.known import kinds

    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=True, color=color)
    found = list(kinds())
    named = opt.settings().stores
    if json:
        output.document(
            {
                "kinds": [asdict(kind) for kind in found],
                "named": {name: redact(store.url) for name, store in named.items()},
            }
        )
        return
    rows = [*map(_cells, found)]
    rows += [(f"{name}:", *[""] * 6, f"named store: {printable(redact(store.url))}") for name, store in named.items()]
    if not output.rich_stdout:
        output.data(["\t".join(row) for row in rows])
        return
    widths = [max(len(row[column]) for row in (_COLUMNS, *rows)) for column in range(len(_COLUMNS))]
    for row in (_COLUMNS, *rows):
        output.data(["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()])


def _cells(kind: Kind) -> Sequence[str]:
    ready = "yes" if kind.ready else f"pip install {kind.package}"
    schemes = " ".join(f"{scheme}:" if scheme else "PATH" for scheme in kind.schemes)
    answers = (kind.reads, kind.writes, kind.streams, kind.signs, kind.atomic)
    return (printable(schemes), printable(ready), *(_ANSWERS[answer] for answer in answers), printable(kind.store))
