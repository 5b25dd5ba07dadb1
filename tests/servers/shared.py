"""One real server for all processes of a test run: the users of a folder share it.

The first user starts a guard process that runs the server; the last one to leave stops it. Whether anybody still uses
the server is known from shared file locks, which the kernel drops with the process that holds them: the server ends
even when a test run is killed.

A server's module, run as ``python -m MODULE FOLDER``, is that guard: it calls :func:`guard`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]


@contextmanager
def shared(folder: Path, module: str) -> Iterator[dict[str, Any]]:
    """Use the server of *folder*, whose guard is *module*; gives what the module's ``start`` told of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "users.lock", "w") as users:
        with open(folder / "start.lock", "w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            # A guard that is about to stop holds this lock exclusively: nobody finds its server still listed.
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (folder / "server.json").exists():
                _start_guard(folder, module)
            server = json.loads((folder / "server.json").read_text())
        yield server


def _start_guard(folder: Path, module: str) -> None:
    log = folder / "guard.log"
    with open(log, "w") as output:
        # The guard forks and its parent returns when the server answers: no child is left to wait for.
        started = subprocess.run(
            [sys.executable, "-m", module, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
            check=False,
        )
    if started.returncode != 0:
        raise RuntimeError(f"the server {module} did not start:\n{log.read_text()[-4000:]}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. All are held at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def guard(start: Callable[[], tuple[dict[str, Any], Callable[[], None]]]) -> int:
    """Leave a guard behind in a session of its own; returns when its server answers.

    Parameters
    ----------
    start : starts the server; returns what users need to know of it, and how to stop it.
    """
    folder = Path(sys.argv[1])
    listen, ready = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.close(listen)
        _guard(folder, ready, start)
        return 0
    os.close(ready)
    return 0 if os.read(listen, 1) else 1


def _guard(folder: Path, ready: int, start: Callable[[], tuple[dict[str, Any], Callable[[], None]]]) -> None:
    """Run a server until nobody uses it any more; one byte is written to *ready* when it answers."""
    signal.signal(signal.SIGTERM, _terminated)
    listed = folder / "server.json"
    server, stop = start()
    listed.touch(mode=0o600)
    listed.write_text(json.dumps(server))
    os.write(ready, b"1")
    os.close(ready)
    with open(folder / "users.lock") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        listed.unlink(missing_ok=True)
        stop()


def _terminated(_sign: int, _frame: FrameType | None) -> None:
    sys.exit(143)
