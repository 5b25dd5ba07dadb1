"""Runs of several processes that end in the middle: nobody goes on, nothing half-written stays."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, environment
from tests.e2e.test_interrupts import ROWS, uploads

WAIT = 60
ARGUMENTS = ["-j", "2", "--max-count", "5000"]  # shards of 20 MB, which go up in two parts


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that are worth several processes: 100 MB."""
    path = tmp_path_factory.mktemp("large") / "rows.jsonl"
    with path.open("wb") as file:
        for _ in range(30):
            file.writelines(ROWS)
    return path


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    """Those, and theirs."""
    found = children(pid)
    for child in list(found):
        try:
            found += descendants(child)
        except OSError:
            found.remove(child)
    return found


def alive(pids: list[int]) -> list[int]:
    """The processes that have not ended."""
    running = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.append(pid)
    return running


@pytest.fixture
def started(large, store, s3_env, tmp_path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run that has finished a shard and goes on, and all its processes."""
    process = subprocess.Popen(
        [COMMAND, "write", str(large), f"s3://{store.bucket}/ds", *ARGUMENTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path / "home", s3_env),
    )
    deadline = time.monotonic() + WAIT
    while not any(item.name.endswith(".tar") for item in store.list("ds")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    yield process, workers
    if process.poll() is None:
        process.kill()
    process.communicate()


def nobody_is_left(pids: list[int]) -> None:
    """Wait until all have ended; a process that is killed takes a moment to be gone."""
    deadline = time.monotonic() + WAIT
    while alive(pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_signal_ends_all(started, cli, large, store, s3_server, s3_env, tmp_path):
    process, workers = started
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=WAIT)
    assert process.returncode == 143
    assert message == "atdata-cli: terminated (run the same command again: it goes on where this one was)\n"
    nobody_is_left(workers)
    assert uploads(s3_server, store.bucket) == []
    # The same command makes up for it; one process alone makes the same.
    finished = cli("write", str(large), f"s3://{store.bucket}/ds", *ARGUMENTS, env=s3_env)
    assert finished.code == 0, finished.err
    alone = cli("write", str(large), str(tmp_path / "alone"), *ARGUMENTS, "-j", "1")
    assert alone.code == 0, alone.err
    for path in (tmp_path / "alone").iterdir():
        assert store.read(f"ds/{path.name}") == path.read_bytes()


def test_a_worker_that_is_killed_ends_the_run(started, store, s3_server):
    process, workers = started
    os.kill(max(workers), signal.SIGKILL)
    _, message = process.communicate(timeout=WAIT)
    assert process.returncode == 1
    assert "a worker process died" in message
    assert "--jobs 1" in message
    nobody_is_left(workers)


def test_workers_end_when_the_program_is_killed(started, store, s3_server):
    process, workers = started
    process.kill()
    process.communicate(timeout=WAIT)
    nobody_is_left(workers)
    assert uploads(s3_server, store.bucket) == []
