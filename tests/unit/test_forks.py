"""Forks: what they do comes back, what they cannot do is told, and none is left behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_SCRIPT = """
import os, signal, sys
from atdata_cli.shards import forks
from atdata_cli.shards.forks import in_forks, is_alone

def nobody_left():
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False

def files():
    return len(os.listdir("/proc/self/fd"))

def dies():
    os.kill(os.getpid(), signal.SIGKILL)

def fails():
    raise SystemExit(0)
"""


def run(code: str) -> None:
    """In a process of its own: the one that runs tests has threads."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT + textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_each_does_its_part() -> None:
    run("""
    before = files()
    assert is_alone()
    many = 3_000_000  # more than a pipe holds
    made = in_forks([os.getpid, os.getpid, lambda: "x" * many, dies, fails, lambda: lambda: 0, os.getpid])
    assert made[0] == os.getpid() and len({made[0], made[1], made[6]}) == 3
    assert len(made[2]) == many
    assert made[3:6] == [None, None, None]
    assert nobody_left() and files() == before
    print("fine")
    """)


def test_where_there_is_no_process_to_spare_less_is_done() -> None:
    run("""
    fork, left = os.fork, [1]
    def rarely():
        if not left:
            raise BlockingIOError
        left.pop()
        return fork()
    os.fork = rarely
    before = files()
    assert in_forks([lambda: 1, lambda: 2, lambda: 3]) == [1, 2, None]
    assert nobody_left() and files() == before
    print("fine")
    """)


def test_none_outlives_a_failure_here() -> None:
    run("""
    import time
    before = files()
    def stopped():
        raise KeyboardInterrupt
    try:
        in_forks([stopped, lambda: time.sleep(600)])
    except KeyboardInterrupt:
        assert nobody_left() and files() == before
        print("fine")
    """)


def test_ctrl_c_ends_a_fork_though_its_parent_cleans_up() -> None:
    run("""
    import time
    from atdata_cli.signals import end_at
    end_at((signal.SIGINT,), seconds=30)
    assert is_alone()
    def is_stopped():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
    assert in_forks([lambda: 1, is_stopped]) == [1, None]
    print("fine")
    """)
