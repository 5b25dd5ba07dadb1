"""Work on many shards at once, in processes: Python code does not run in parallel in threads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from atdata_cli.errors import AtdataError
from atdata_cli.shards.forks import is_alone
from atdata_cli.signals import end_at, held_back, let_through

__all__ = ["EarlyProcesses", "ProcessExecutor", "run_in_processes"]

# Given a task and how to send messages on the way: its last message.
Work = Callable[[Any, Callable[[Any], None]], Any]
_Call = tuple[Future[Any], tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]]
_CLEANING_SECONDS = 1.5  # less than the command line allows in all
_LEAVING_SECONDS = 1.7  # for a process whose parent is not there to end it


def _context(preload: str) -> Any:
    # Never fork: the parent may have threads (fsspec's loop), whose locks a fork would copy as they are.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        # Imported once, by the server, and not by each worker.
        context.set_forkserver_preload(["__main__", preload])
    return context


def _died() -> AtdataError:
    return AtdataError(
        "a worker process died", hint="it may have been killed for want of memory: try again with --jobs 1"
    )


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
    context = _context(preload)
    waiting = iter(tasks)
    processes = []
    open_ends: list[Connection] = []
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make_work, theirs, dict(os.environ)), daemon=True)
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
        raise _died() from error
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
            connection.send(("failed", error))


class ProcessExecutor(Executor):
    """Runs tasks in processes; they end when this does, and when the process that made it dies.

    Unlike :class:`concurrent.futures.ProcessPoolExecutor` it can be stopped at once (:meth:`stop`): what its processes
    have begun is cleaned up by them.

    Parameters
    ----------
    jobs : how many processes.
    preload : the module that the tasks need.
    """

    def __init__(self, jobs: int, *, preload: str) -> None:
        # A fork has all imports at once, and that is a third of a second less. It is as safe as forks are while there
        # is no other thread, of Python or of anything else, whose locks it would copy as they are.
        self._context = multiprocessing.get_context("fork") if is_alone() else _context(preload)
        self._tasks: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        for _ in range(jobs):
            self._start(dict(os.environ))
        self._threads = [
            threading.Thread(target=self._drive, args=worker, daemon=True)
            for worker in zip(self._processes, self._connections, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See :class:`concurrent.futures.Executor`; everything must be picklable."""
        future: Future[Any] = Future()
        self._tasks.put((future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See :class:`concurrent.futures.Executor`."""
        if cancel_futures:
            self._cancel()
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def stop(self) -> None:
        """End all processes now; those that do not clean up in time are killed."""
        self.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + _CLEANING_SECONDS
        for process in self._processes:
            process.join(max(0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for thread in self._threads:
            thread.join()

    def _cancel(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                call = self._tasks.get_nowait()
                if call is not None:
                    call[0].cancel()

    def _drive(self, process: Any, connection: Connection) -> None:
        """What a thread does: give tasks to one process, one after the other."""
        while (call := self._tasks.get()) is not None:
            future, task = call
            if not future.set_running_or_notify_cancel():
                continue
            result, error = None, None
            try:
                connection.send(task)
                result, error = connection.recv()
            except (EOFError, OSError) as lost:
                error = _died()
                error.__cause__ = lost
            except BaseException as failed:  # what cannot be pickled, most likely
                error = failed
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        connection.close()  # which ends the process
        process.join()

    def _start(self, environment: Mapping[str, str]) -> None:
        ours, theirs = self._context.Pipe()
        # A fork has the ends of those before it, which are to notice that this process is gone.
        forks = self._context.get_start_method() == "fork"
        others = [*self._connections, ours] if forks else []
        process = self._context.Process(target=_answer, args=(theirs, others, environment), daemon=True)
        with held_back() if forks else contextlib.nullcontext():
            process.start()
        theirs.close()
        self._processes.append(process)
        self._connections.append(ours)


class EarlyProcesses:
    """Processes that are forked while that is possible, for whoever will be the first to need some.

    Parameters
    ----------
    jobs : how many.
    start : makes them.
    """

    def __init__(self, jobs: int, start: Callable[[int], ProcessExecutor]) -> None:
        self._jobs = jobs
        self._start = start
        self._waiting = start(jobs) if is_alone() else None

    def __call__(self, jobs: int) -> ProcessExecutor:
        """Those that wait; new ones when these have been given away."""
        waiting, self._waiting = self._waiting, None
        return waiting or self._start(jobs)

    def each(self, function: Callable[..., Any], *args: Any) -> None:
        """Have each process that waits do something before its first task; what comes of it is not told."""
        if self._waiting is not None:
            for _ in range(self._jobs):
                self._waiting.submit(function, *args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._waiting is not None:
            self._waiting.stop()


def _answer(connection: Connection, others: Sequence[Connection], environment: Mapping[str, str]) -> None:
    """A process's life: it does what it is told, and tells what came of it."""
    # Ctrl-C and a hang-up reach the whole group; the parent alone says what is to be done about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_at((signal.SIGTERM,), seconds=_LEAVING_SECONDS, parent=connection.fileno())
    let_through()
    for other in others:
        other.close()
    os.environ.update(environment)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, args, kwargs = connection.recv()
            result, failure = None, None
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                failure = error
            connection.send((result, failure))
