"""What the program prints: data to stdout, everything for people to stderr, progress only on a terminal."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TextIO

from atdata_cli import config
from atdata_cli.cli.given import events
from atdata_cli.errors import AtdataError, ExitCode, from_os_error
from atdata_cli.refs import printable, redact
from atdata_cli.words import count, human_bytes

__all__ = ["Output", "Progress", "count", "dumped", "flush_stdout", "human_bytes", "print_bytes", "print_error"]

_REDRAW_SECONDS = 0.1
_EVENT_SECONDS = 1.0


def print_error(error: AtdataError, *, as_json: bool) -> None:
    """Tell of a failure on stderr: one line for people, or the JSON document that ends a failed ``--json`` run."""
    url = None if error.url is None else printable(redact(error.url))
    message = printable(redact(error.message))
    hint = None if error.hint is None else printable(redact(error.hint))
    if as_json:
        details = {
            "code": error.code,
            "exit": int(error.exit_code),
            "message": message,
            "hint": hint,
            "url": url,
        }
        print(dumped({"error": details}), file=sys.stderr)
        return
    where = f"{url}: " if url else ""
    advice = f" ({hint})" if hint else ""
    print(f"atdata-cli: {where}{message}{advice}", file=sys.stderr)


def dumped(document: Mapping[str, Any]) -> str:
    """A document in one line; only what prints one imports what makes it."""
    import json

    return json.dumps(document)


def _print(text: str) -> None:
    """Write to stdout, at once.

    A reader that has gone away ends the run with its own exit code, told apart from broken connections, which are
    ``BrokenPipeError`` too. File names that are not UTF-8, or that the locale cannot show, pass as the bytes they are.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    with _stdout():
        print(text, flush=True)


def print_bytes(data: bytes) -> None:
    """Write to stdout, at once, byte for byte."""
    with _stdout():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextmanager
def _stdout() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # What Python still holds for stdout must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(ExitCode.BROKEN_PIPE) from None
        raise from_os_error(error, "standard output", doing="write to") from error


def flush_stdout() -> None:
    """Write what others have left to be written."""
    with _stdout():
        sys.stdout.flush()


class _Position(Protocol):
    def position(self) -> int: ...

    def size(self) -> int | None: ...


class Progress(Protocol):
    """How far a run is.

    Attributes
    ----------
    activity : what is going on, as a verb.
    shards, bytes : done so far.
    samples : likewise; None where nobody counts them.
    source : knows the position in the input, and its size, both in bytes.
    """

    @property
    def activity(self) -> str: ...  # noqa: D102
    @property
    def shards(self) -> int: ...  # noqa: D102
    @property
    def bytes(self) -> int: ...  # noqa: D102
    @property
    def samples(self) -> int | None: ...  # noqa: D102
    @property
    def source(self) -> _Position | None: ...  # noqa: D102


def _listen(output: Output) -> None:
    """Show what the layers below log: that a server keeps a run waiting to everybody, the rest if it is asked for."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show = output.say if record.levelno >= logging.WARNING else output.detail
            show(record.getMessage())

    logger = logging.getLogger("atdata_cli")
    logger.handlers = [Handler()]
    logger.propagate = False
    logger.setLevel(logging.INFO if output.verbose else logging.WARNING)


class Output:
    """How one command talks.

    Parameters
    ----------
    as_json, quiet, verbose, no_progress, color : the common options.
    """

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool, no_progress: bool, color: str = "auto") -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose and not quiet
        self._when = color
        self._color = _wants_color(color, sys.stderr)
        self.events = events()
        seen = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and config.get("CI") is None
        self._progress = seen and not (as_json or quiet or no_progress)
        _listen(self)

    @property
    def rich_stdout(self) -> bool:
        """Whether a person reads standard output on a terminal that can show more than plain text."""
        return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def colors_stdout(self) -> bool:
        """Whether what goes to standard output is coloured."""
        return _wants_color(self._when, sys.stdout)

    def data(self, lines: Sequence[str]) -> None:
        """Print data, one a line."""
        if lines:
            _print("\n".join(lines))

    def document(self, document: dict[str, Any]) -> None:
        """Print the one JSON document of ``--json``."""
        _print(dumped(document))

    def say(self, text: str, *, style: str = "") -> None:
        """Tell people something."""
        if not self.quiet and (self.events or not self.as_json):
            self._line("message", text, style)

    def warn(self, text: str) -> None:
        """Tell people something they should look at; not even ``--json`` silences it."""
        if not self.quiet:
            self._line("warning", text if self.events else f"warning: {text}", "33")

    def problem(self, text: str) -> None:
        """Tell what made the run fail; nothing silences it."""
        self._line("problem", text, "31")

    def detail(self, text: str) -> None:
        """Tell people something that only ``--verbose`` asks for."""
        if self.verbose:
            self._line("detail", text, "2")

    def _line(self, kind: str, text: str, style: str) -> None:
        text = printable(redact(text))
        if self.events:
            _tell({"event": kind, "text": text})
            return
        if self._color and style:
            text = f"\x1b[{style}m{text}\x1b[0m"
        print(text, file=sys.stderr)

    @contextmanager
    def progress(self, progress: Progress) -> Iterator[None]:
        """Show how far a run is while the block runs, if anybody can see it."""
        if not (self._progress or self.events):
            yield
            return
        stop = threading.Event()
        shown: Callable[[], None]
        if self.events:
            shown = partial(_tell_progress, progress, stop)
        else:
            from atdata_cli.cli.progress import Bar

            shown = partial(_draw, Bar(progress, color=self._color), stop)
        thread = threading.Thread(target=shown, name="progress", daemon=True)
        try:
            thread.start()
            yield
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()


class _Drawn(Protocol):
    def __enter__(self) -> Any: ...

    def __exit__(self, *_: Any) -> Any: ...

    def update(self) -> None: ...


def _draw(bar: _Drawn, stop: threading.Event) -> None:
    # Begun and ended here too: Ctrl-C interrupts the main thread only, so the cursor always comes back.
    with suppress(OSError), bar:  # a terminal that is gone ends no run
        while not stop.wait(_REDRAW_SECONDS):
            bar.update()


def _tell_progress(progress: Progress, stop: threading.Event) -> None:
    """An event now and then, and one at the end."""
    began = time.monotonic()
    with suppress(OSError):
        while True:
            ended = stop.wait(_EVENT_SECONDS)
            source = progress.source
            _tell(
                {
                    "event": "progress",
                    "activity": progress.activity,
                    "shards": progress.shards,
                    "samples": progress.samples,
                    "bytes": progress.bytes,
                    "position": source.position() if source else None,
                    "size": source.size() if source else None,
                    "seconds": round(time.monotonic() - began, 3),
                    "ended": ended,
                }
            )
            if ended:
                return


def _tell(event: dict[str, Any]) -> None:
    """One line of ``--json-events``, in one piece: several threads have something to tell."""
    sys.stderr.write(dumped(event) + "\n")
    sys.stderr.flush()


def _wants_color(when: str, stream: TextIO) -> bool:
    """Flag over NO_COLOR over FORCE_COLOR over TERM over whether the stream is a terminal."""
    if when != "auto":
        return when == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"
