"""Forks of this process that do a part of its work and tell what came of it: at once, with all that is loaded."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from atdata_cli.signals import ending, held_back, let_through, quiet_threads

__all__ = ["in_forks", "is_alone", "usable_cores"]

_T = TypeVar("_T")


def usable_cores() -> int:
    """Processors that this process may use, by affinity and by its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
        quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def is_alone() -> bool:
    """Whether this process has no other thread that does something; False where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task")) == 1 + quiet_threads()
    except OSError:
        return False


def in_forks(calls: Sequence[Callable[[], _T]]) -> list[_T | None]:
    """Call each in a fork of its own, the first one here; for short work that only reads.

    :class:`~atdata_cli.shards.workers.ProcessExecutor` can do more, but has to be loaded first.

    Parameters
    ----------
    calls : what they return must be picklable.

    Returns
    -------
    What each returned; None for a fork that failed, whose work is for the caller to do.
    """
    import pickle

    forks: list[tuple[int, int]] = []
    try:
        with contextlib.suppress(OSError):  # no process or file to spare: then there is less help
            for call in calls[1:]:
                forks.append(_fork(call))  # noqa: PERF401  what was begun counts, too, if the next one fails
        made: list[_T | None] = [calls[0]()]
        while forks:
            pid, reader = forks[0]
            with open(reader, "rb", closefd=False) as file:
                told = file.read()
            forks.pop(0)
            os.close(reader)
            made.append(pickle.loads(told) if os.waitpid(pid, 0)[1] == 0 else None)  # noqa: S301  a fork's of ours
        return made + [None] * (len(calls) - len(made))
    finally:
        for pid, reader in forks:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)


def _fork(call: Callable[[], Any]) -> tuple[int, int]:
    """Its number, and where its result comes from."""
    reader, writer = os.pipe()
    try:
        with held_back():
            pid = os.fork()
            if not pid:
                _answer(call, writer)
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return pid, reader


def _answer(call: Callable[[], Any], writer: int) -> NoReturn:
    """A fork's life: whatever happens, it comes back to nothing of its parent's."""
    import pickle

    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in ending():
            signal.signal(number, signal.SIG_DFL)
        let_through()
        with open(writer, "wb") as file:
            file.write(pickle.dumps(call()))
        code = 0
    finally:
        os._exit(code)
