"""Work on many shards at once, in processes: Python code does not run in parallel in threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from atdata_cli.errors import AtdataError

__all__ = ["run_in_processes", "usable_cores"]

# Given a task and how to send messages on the way: its last message.
Work = Callable[[Any, Callable[[Any], None]], Any]


def usable_cores() -> int:
    """Processors that this process may use, by affinity and by its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
        quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def run_in_processes(
    make_work: Callable[[], Work], tasks: Iterable[Any], jobs: int, *, preload: str
) -> Generator[Any, None, None]:
    """Run *tasks* on *jobs* processes; their messages as they come.

    A worker gets its next task when it has finished one, and waits while nobody takes its messages: so memory does
    not depend on the number of tasks or messages.

    Parameters
    ----------
    make_work : called once in each process; must be picklable, and so must tasks and messages.
    preload : the module that the work needs.

    Raises
    ------
    AtdataError : by the work, or because a process died.
    """
    # Never fork: the parent may have threads (fsspec's loop), whose locks a fork would copy as they are.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        # Imported once, by the server, and not by each worker.
        context.set_forkserver_preload(["__main__", preload])
    waiting = iter(tasks)
    processes = []
    open_ends: list[Connection] = []
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make_work, theirs, dict(os.environ)), daemon=True)  # type: ignore[attr-defined]
            process.start()
            theirs.close()
            processes.append(process)
            open_ends.append(ours)
            _next_task(ours, waiting, open_ends)
        while open_ends:
            for connection in wait(open_ends):
                yield from _messages(connection, waiting, open_ends)  # type: ignore[arg-type]
    finally:
        for connection in open_ends:
            connection.close()
        for process in processes:
            process.terminate()
            process.join()


def _next_task(connection: Connection, waiting: Iterator[Any], open_ends: list[Connection]) -> None:
    for task in waiting:
        connection.send((True, task))
        return
    connection.send((False, None))
    open_ends.remove(connection)
    connection.close()


def _messages(connection: Connection, waiting: Iterator[Any], open_ends: list[Connection]) -> Iterator[Any]:
    """One message of a worker."""
    try:
        kind, message = connection.recv()
    except (EOFError, ConnectionResetError) as error:
        raise AtdataError(
            "a worker process died", hint="it may have been killed for want of memory: try again with --jobs 1"
        ) from error
    if kind == "failed":
        raise message
    yield message
    if kind == "done":
        _next_task(connection, waiting, open_ends)


def _serve(make_work: Callable[[], Work], connection: Connection, environment: Mapping[str, str]) -> None:
    """A worker's life."""
    # Ctrl-C reaches the whole group; the parent alone says what is to be done about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The fork server has the variables of when it started; credentials may have come since.
    os.environ.update(environment)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            work = make_work()
            while True:
                more, task = connection.recv()
                if not more:
                    return
                last = work(task, lambda message: connection.send(("more", message)))
                connection.send(("done", last))
        except AtdataError as error:
            connection.send(("failed", _portable(error)))


def _portable(error: AtdataError) -> AtdataError:
    """The error without what cannot be pickled: keyword arguments of its class and its causes."""
    plain = AtdataError(error.message, url=error.url, hint=error.hint)
    plain.exit_code, plain.code = error.exit_code, error.code
    plain.retryable, plain.repeated = error.retryable, error.repeated
    return plain
