"""A Dask cluster on two addresses: the same dataset as one process makes, whoever is lost on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, environment

pytest.importorskip("distributed")

DASK = str(Path(sys.executable).with_name("dask"))
WAIT = 60


def start(stack: ExitStack, said: str, folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A process of the cluster, and what its log says where it is."""
    log = folder / f"{len(list(folder.iterdir()))}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen([DASK, *arguments], stderr=stderr, stdout=subprocess.DEVNULL, text=True, cwd=folder)
    stack.enter_context(process)
    stack.callback(process.kill)
    deadline = time.monotonic() + WAIT
    while not (found := re.search(said, log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process, found[1]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """HOST:PORT of a scheduler, and its workers' processes."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with ExitStack() as stack:
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
        _, address = start(stack, r"Scheduler at:\s+tcp://(\S+)", folder, *scheduler)
        workers = []
        for number in range(4):
            host = f"127.0.0.{1 + number % 2}"
            worker = ["worker", f"tcp://{address}", "--host", host, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
            process, _ = start(stack, r"Registered to:\s+(\S+)", folder, *worker)
            workers.append(process)
        yield address, workers


def test_a_worker_is_lost(cluster, cli, tmp_path):
    address, workers = cluster
    source = tmp_path / "rows.jsonl"
    with source.open("w") as file:
        for number in range(40_000):
            file.write(json.dumps({"n": number, "text": f"{number:06d} " * 60}) + "\n")
    arguments = ["--max-count", "1000", "--name", "d"]
    process = subprocess.Popen(
        [COMMAND, "write", "rows.jsonl", "together", *arguments, "--engine", f"dask://{address}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path / "home", {}),
    )
    deadline = time.monotonic() + WAIT
    while len(list((tmp_path / "together").glob("*.tar"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(workers[0].pid, signal.SIGKILL)
    assert process.poll() is None
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 40
    assert "wrote 40,000 samples in 40 shards" in err
    alone = cli("write", "rows.jsonl", "alone", *arguments, "--jobs", "1", "--engine", "local")
    assert alone.code == 0, alone.err
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "alone").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "together").iterdir()} == wanted

    # What is wrong with the input is said as by one process, and nothing stays.
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n" + source.read_text())
    failed = cli("write", "bad.jsonl", "bad", *arguments, "--engine", f"dask://{address}")
    assert failed.code == 1
    assert "bad.jsonl:1" in failed.err
    assert not list((tmp_path / "bad").glob("*"))

    # What one process has to do is said, and done.
    split = ["--split", "a=0.5,b=0.5", "--engine", f"dask://{address}"]
    divided = cli("write", "rows.jsonl", "split", *arguments, *split)
    assert divided.code == 0, divided.err
    assert "was not used" in divided.err


def test_no_cluster(cli, rows_file):
    ran = cli("write", str(rows_file), "out", "--engine", "dask://127.0.0.1:1")
    assert ran.code == 5
    assert "scheduler" in ran.err
    ran = cli("write", str(rows_file), "out", "--engine", "ray://head:10001")
    assert ran.code == 2
    assert "dask://HOST:PORT" in ran.err
    ran = cli("write", str(rows_file), "out", "--engine", "dask://127.0.0.1:1", "-o", "secret=hunter2")
    assert ran.code == 2
    assert "hunter2" not in ran.err
