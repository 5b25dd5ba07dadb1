"""Signals that end a process: what is half-written is cleaned up, but not for longer than a person waits.

Python runs a handler in the main thread, as soon as that one comes back from what it waits for. The system may give the
signal to any other thread, however, and then the main thread goes on waiting, for a pipe that stays silent for ever.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["end_at", "ending", "held_back", "let_through", "quiet_threads"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_watcher: threading.Thread | None = None
_stopped_by = 0


def ending() -> set[signal.Signals]:
    """The signals by which people and systems end a program.

    One that is ignored when the program starts (SIGHUP under nohup) is not among them: it is to stay ignored.
    """
    return {number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN}


def end_at(signals: Collection[signal.Signals], *, seconds: float, parent: int | None = None) -> None:
    """From now on the first of *signals* is a ``SystemExit`` in the main thread, with 128 and its number.

    Further ones do nothing, so that nothing interrupts the cleaning up. Where there is no file or no thread to spare,
    Python's own handling has to do.

    Parameters
    ----------
    signals : which.
    seconds : how long cleaning up may take before the process ends without it. A server that does not answer must not
        keep the process: its threads are waited for at the end.
    parent : a descriptor of which another process has the other end; that its end is closed counts as SIGTERM.
    """
    global _watcher
    signal.set_wakeup_fd(-1)  # a fork's is its parent's
    for number in signals:
        signal.signal(number, _stop)
    try:
        reader, writer = os.pipe()
        watcher = threading.Thread(target=_watch, args=(reader, parent, signals, seconds), name="signals", daemon=True)
        watcher.start()
    except (OSError, RuntimeError):
        return  # whoever needs one next says so
    _watcher = watcher
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)


@contextmanager
def held_back() -> Iterator[None]:
    """No signal that ends a process gets through to this thread, and to what is forked in the block.

    A fork would do what its parent does then. Once it has said what is to happen instead, it calls :func:`let_through`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """The end of :func:`held_back` in a fork."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def quiet_threads() -> int:
    """How many of this process's threads only wait for signals; they hold no lock that a fork could copy."""
    return int(_watcher is not None and _watcher.is_alive())


def _watch(reader: int, parent: int | None, signals: Collection[signal.Signals], seconds: float) -> None:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    if parent is not None:
        poll.register(parent, 0)  # a hang-up is always told
    number = 0
    while number not in signals:
        ready, _ = poll.poll()[0]
        number = os.read(reader, 1)[0] if ready == reader else signal.SIGTERM
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
