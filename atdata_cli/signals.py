"""Signals that end a process: what is half-written is cleaned up, but not for longer than a person waits.

Python runs a handler in the main thread, as soon as that one comes back from what it waits for. The system may give the
signal to any other thread, however, and then the main thread goes on waiting, for a pipe that stays silent for ever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection
from types import FrameType

__all__ = ["ENDING", "end_at", "quiet_threads"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which people and systems end a program."""

_watcher: threading.Thread | None = None
_stopped_by = 0


def end_at(signals: Collection[signal.Signals], *, seconds: float) -> None:
    """From now on the first of *signals* is a ``SystemExit`` in the main thread, with 128 and its number.

    Further ones do nothing, so that nothing interrupts the cleaning up. A signal that is ignored when the program
    starts (SIGHUP under nohup) stays ignored.

    Parameters
    ----------
    signals : which.
    seconds : how long cleaning up may take before the process ends without it. A server that does not answer must not
        keep the process: its threads are waited for at the end.
    """
    global _watcher
    heard = {number for number in signals if signal.getsignal(number) is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, _stop)
    try:
        reader, writer = os.pipe()
    except OSError:
        return  # no file to spare; whoever needs one next says so
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _watcher = threading.Thread(target=_watch, args=(reader, heard, seconds), name="signals", daemon=True)
    _watcher.start()


def quiet_threads() -> int:
    """How many of this process's threads only wait for signals; they hold no lock that a fork could copy."""
    return int(_watcher is not None and _watcher.is_alive())


def _watch(reader: int, heard: Collection[signal.Signals], seconds: float) -> None:
    while (number := os.read(reader, 1)[0]) not in heard:
        pass
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)  # ends what it waits for
    threading.Event().wait(seconds)
    os._exit(128 + (_stopped_by or number))


def _stop(number: int, frame: FrameType | None) -> None:
    global _stopped_by
    if not _stopped_by:
        _stopped_by = number
        raise SystemExit(128 + number)


# A signal that a fork gets, before it says itself what is to happen then, is not one for its parent.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
