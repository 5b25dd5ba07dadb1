"""Work in processes: everything comes back, failures arrive whole, and nothing is left running."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from atdata_cli.errors import AtdataError, ExitCode, NotFoundError
from atdata_cli.shards.forks import usable_cores
from atdata_cli.shards.workers import run_in_processes


def squares() -> Callable[[int, Callable[[Any], None]], Any]:
    def work(task: int, emit: Callable[[Any], None]) -> Any:
        if task == 13:
            raise NotFoundError("no thirteen", url="u", hint="h")
        if task == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        emit(("on the way", task))
        return task, task * task

    return work


def run(tasks: list[int], jobs: int) -> list[Any]:
    return list(run_in_processes(squares, tasks, jobs, preload=__name__))


def test_all_messages_arrive() -> None:
    messages = run(list(range(10)), 3)
    assert sorted(message for message in messages if message[0] != "on the way") == [(n, n * n) for n in range(10)]
    assert len(messages) == 20
    assert multiprocessing.active_children() == []


def test_more_workers_than_tasks() -> None:
    assert len(run([1], 3)) == 2


def test_a_failure_arrives_with_all_it_says() -> None:
    with pytest.raises(AtdataError, match="no thirteen") as caught:
        run([1, 13, 2], 2)
    error = caught.value
    assert (error.url, error.hint, error.exit_code, error.code) == ("u", "h", ExitCode.NOT_FOUND, "not-found")
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_is_noticed() -> None:
    with pytest.raises(AtdataError, match="a worker process died"):
        run([1, 17, 2], 2)
    assert multiprocessing.active_children() == []


def test_stopping_early_leaves_nobody_behind() -> None:
    messages = run_in_processes(squares, range(1000), 2, preload=__name__)
    next(messages)
    messages.close()
    assert multiprocessing.active_children() == []


def test_cores() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
