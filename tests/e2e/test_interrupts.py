"""Runs that end in the middle of a shard to S3: nothing half-written stays, and the same command makes up for it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atdata_cli import S3DataStore
from tests.cli.conftest import COMMAND, environment
from tests.cli.test_write_s3 import objects
from tests.servers.proxy import Exchange, Faults, faulty
from tests.servers.seaweed import S3Server, filesystem

# As tars, 1,000 of them are 4 MB: a part of a multipart upload (16 MiB) is full after 4,000.
ROWS = [json.dumps({"n": number, "text": f"{number:04d}" * 800}).encode() + b"\n" for number in range(1000)]
BLOCK = b"".join(ROWS)
SHARD = 25_000
WAIT = 60  # seconds until a hanging program fails the test


def uploads(server: S3Server, bucket: str) -> list[dict[str, Any]]:
    """The multipart uploads that are under way."""
    listed: list[dict[str, Any]] = (
        filesystem(server).call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])
    )
    return listed


def feed_until_uploading(process: subprocess.Popen[bytes], server: S3Server, bucket: str) -> None:
    """Write rows until the server has part of a shard."""
    assert process.stdin is not None
    deadline = time.monotonic() + WAIT
    # Fewer than make a shard, so that none is finished; the uploads of bytes written are always behind.
    for _ in range(SHARD // len(ROWS) - 1):
        process.stdin.write(BLOCK)
        process.stdin.flush()
        if uploads(server, bucket):
            return
    while not uploads(server, bucket):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def nothing_but_the_mark(store: S3DataStore, server: S3Server, prefix: str) -> None:
    """Assert that no shard, no manifest and no part of an upload is left."""
    assert objects(store, prefix).keys() <= {".atdata/job.json"}
    assert uploads(server, store.bucket) == []


def check_same_command_succeeds(cli, store: S3DataStore, s3_env: dict[str, str], arguments: list[str]) -> None:
    """Run an interrupted write again; its bytes are those of a run to another prefix that nothing disturbed."""
    data = BLOCK * 3
    interrupted = cli("write", "-", f"s3://{store.bucket}/broken", *arguments, stdin=data, env=s3_env)
    assert interrupted.code == 0, interrupted.err
    assert cli("write", "-", f"s3://{store.bucket}/whole", *arguments, stdin=data, env=s3_env).code == 0
    whole = objects(store, "whole")
    assert objects(store, "broken") == whole
    assert "manifest.json" in whole
    assert ".atdata/job.json" not in whole


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_abort_the_upload(cli, store, s3_server, s3_env, tmp_path, sent):
    arguments = ["--from", "jsonl", "--max-count", str(SHARD)]
    process = subprocess.Popen(
        [COMMAND, "write", "-", f"s3://{store.bucket}/broken", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(tmp_path / "home", s3_env),
    )
    feed_until_uploading(process, s3_server, store.bucket)
    process.send_signal(sent)
    assert process.wait(timeout=WAIT) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}[sent]
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:  # open until now: no end of input ended the run
        assert process.stdout.read() == b""
        message = process.stderr.read().decode()
    assert "Traceback" not in message
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}[sent]
    assert message == f"atdata-cli: {word} (run the same command again: it goes on where this one was)\n"
    nothing_but_the_mark(store, s3_server, "broken")
    check_same_command_succeeds(cli, store, s3_env, arguments)


def test_input_that_breaks_off(cli, store, s3_server, s3_env, tmp_path):
    """A command that dies after it has written enough for an upload to begin."""
    program = tmp_path / "dies.py"
    program.write_text(
        "import sys\nblock = open('block', 'rb').read()\n"
        "for _ in range(15):\n    sys.stdout.buffer.write(block)\nsys.exit(3)\n"
    )
    (tmp_path / "block").write_bytes(BLOCK)
    target = f"s3://{store.bucket}/broken"
    arguments = ["--from", "jsonl", "--max-count", str(SHARD)]
    ran = cli("write", "--stdin-from-command", *arguments, target, "--", sys.executable, program, env=s3_env)
    ran.failed(1, "3")
    assert objects(store, "broken") == {}
    assert uploads(s3_server, store.bucket) == []
    check_same_command_succeeds(cli, store, s3_env, arguments)


def test_a_bad_row_after_two_shards(cli, store, s3_server, s3_env):
    arguments = ["--from", "jsonl", "--max-count", "5000"]  # 20 MB a shard: a multipart upload each
    data = BLOCK * 12 + b'{"n": nonsense}\n' + BLOCK
    ran = cli("write", "-", f"s3://{store.bucket}/broken", *arguments, stdin=data, env=s3_env)
    ran.failed(1, "12001")
    assert objects(store, "broken") == {}
    assert uploads(s3_server, store.bucket) == []
    check_same_command_succeeds(cli, store, s3_env, arguments)


def test_a_part_that_is_refused(cli, store, s3_server, s3_env):
    """The store's own failure: the second part is not allowed, after the first went through."""
    arguments = ["--from", "jsonl", "--max-count", str(SHARD)]

    def refuse(exchange: Exchange) -> None:
        if exchange.method == "PUT" and "partNumber=2" in exchange.path:
            exchange.status = 403
            exchange.answer = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"

    faults = Faults(request=refuse)
    with faulty(s3_server.endpoint, faults) as endpoint:
        env = {**s3_env, "AWS_ENDPOINT_URL": endpoint}
        ran = cli("write", "-", f"s3://{store.bucket}/broken", *arguments, stdin=BLOCK * 15, env=env)
    ran.failed(4, f"s3://{store.bucket}/broken/shard-000000.tar")
    assert any("partNumber=1" in exchange.path for exchange in faults.seen)
    assert objects(store, "broken") == {}
    assert uploads(s3_server, store.bucket) == []
    check_same_command_succeeds(cli, store, s3_env, arguments)


def finished_shards(store: S3DataStore, prefix: str) -> Iterator[str]:
    """Names of the shards that are there."""
    return (item.name for item in store.list(prefix) if item.name.endswith(".tar"))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_finished_shards_whole(cli, store, s3_server, s3_env, tmp_path, sent):
    """In the third shard: two are finished, and they are what an undisturbed run writes."""
    arguments = ["--from", "jsonl", "--max-count", "5000"]
    process = subprocess.Popen(
        [COMMAND, "write", "-", f"s3://{store.bucket}/broken", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env=environment(tmp_path / "home", s3_env),
    )
    assert process.stdin is not None
    for _ in range(14):
        process.stdin.write(BLOCK)
    process.stdin.flush()
    deadline = time.monotonic() + WAIT
    while len(list(finished_shards(store, "broken"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    assert process.wait(timeout=WAIT) == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
    process.stdin.close()
    assert uploads(s3_server, store.bucket) == []
    left = objects(store, "broken")
    assert cli("write", "-", f"s3://{store.bucket}/whole", *arguments, stdin=BLOCK * 14, env=s3_env).code == 0
    whole = objects(store, "whole")
    state = {".atdata/job.json", ".atdata/shards/000000.json", ".atdata/shards/000001.json"}
    assert left.keys() == {*state, "shard-000000.tar", "shard-000001.tar"}
    assert all(left[name] == whole[name] for name in left if name.endswith(".tar"))
    cli("write", f"s3://{store.bucket}/broken", "copy", env=s3_env).failed(6, "unfinished")
    assert cli("write", "-", f"s3://{store.bucket}/broken", *arguments, stdin=BLOCK * 14, env=s3_env).code == 0
    assert objects(store, "broken") == whole


def test_a_server_that_does_not_answer_keeps_nobody(store, s3_server, s3_env, tmp_path):
    """Parts that hang are given up after a second, the upload is aborted, the process ends, threads or not."""
    go_on = threading.Event()

    def hang(exchange: Exchange) -> None:
        if "partNumber" in exchange.path:
            go_on.wait(WAIT)

    faults = Faults(request=hang)
    with faulty(s3_server.endpoint, faults) as endpoint:
        process = subprocess.Popen(
            [COMMAND, "write", "-", f"s3://{store.bucket}/broken", "--from", "jsonl"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(tmp_path / "home", {**s3_env, "AWS_ENDPOINT_URL": endpoint}),
        )
        assert process.stdin is not None
        assert process.stderr is not None
        for _ in range(6):
            process.stdin.write(BLOCK)
        process.stdin.flush()
        deadline = time.monotonic() + WAIT
        while not any("partNumber" in exchange.path for exchange in faults.seen):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WAIT) == 130
        with process.stdin, process.stderr:
            said = process.stderr.read().decode()
        assert said == "atdata-cli: interrupted (run the same command again: it goes on where this one was)\n"
        assert uploads(s3_server, store.bucket) == []
        go_on.set()


def test_a_signal_that_another_thread_is_given(store, s3_env, tmp_path):
    """The main thread waits for rows, and nothing but a signal of its own brings it back from there."""
    process = subprocess.Popen(
        [COMMAND, "write", "-", f"s3://{store.bucket}/broken", "--from", "jsonl"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(tmp_path / "home", s3_env),
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process.stdin, process.stderr:
        try:
            process.stdin.write(ROWS[0])
            process.stdin.flush()
            others = threads_when_idle(process.pid)
            assert ctypes.CDLL(None).tgkill(process.pid, others[-1], int(signal.SIGTERM)) == 0
            assert process.wait(timeout=WAIT) == 143
            assert b"terminated" in process.stderr.read()
        finally:
            process.kill()
            process.wait()


def threads_when_idle(process: int) -> list[int]:
    """The threads but the main one of a program that has started them and waits for input."""
    deadline = time.monotonic() + WAIT
    while True:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        threads = sorted(int(name) for name in os.listdir(f"/proc/{process}/task"))
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "S" and len(threads) > 2:
            return [thread for thread in threads if thread != process]
