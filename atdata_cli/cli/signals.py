"""Signals that end a run: what is half-written is cleaned up, but not for longer than a person waits."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from atdata_cli.errors import ExitCode

__all__ = ["CLEANING_SECONDS", "handle_signals"]

CLEANING_SECONDS = 1.8
"""How long cleaning up may take before the process ends without it."""

_CODES = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGHUP: ExitCode.HUNG_UP,
}


def handle_signals() -> None:
    """From now on the first of SIGINT, SIGTERM and SIGHUP is an exception in the main thread.

    Further ones are ignored, so that nothing interrupts the cleaning up; it ends by itself. A signal that is ignored
    when the program starts (SIGHUP under nohup) stays ignored.
    """
    for number in _CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for other in _CODES:
        signal.signal(other, signal.SIG_IGN)
    code = _CODES[signal.Signals(number)]
    # A server that does not answer must not keep the process: its threads are waited for at the end.
    last = threading.Timer(CLEANING_SECONDS, os._exit, [int(code)])
    last.daemon = True
    last.start()
    raise SystemExit(code)
