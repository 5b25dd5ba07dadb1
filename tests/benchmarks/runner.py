"""Runs one program and tells what it took: JSON in, JSON out.

A process of its own, because the peak memory of a program counts that of the process that started it, up to the
moment when the one becomes the other: this one is small.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_ORPHAN_SECONDS = 5


def adopt():
    """Become the parent of processes whose own one has ended: a program need not wait for its workers."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans():
    """What processes used that outlived the program; they end soon after it."""
    end = time.monotonic() + _ORPHAN_SECONDS
    while time.monotonic() < end:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            yield usage
        else:
            time.sleep(0.01)


def main():
    """Read ``[arguments, environment, seconds at most]``, write what it took."""
    arguments, environment, longest = json.load(sys.stdin)
    adopt()
    with tempfile.TemporaryFile() as errors:
        # What earlier programs left to be written to the disk is written first, so that nobody pays for another.
        os.sync()
        start = time.perf_counter()
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        timer = threading.Timer(longest, lambda: os.killpg(process.pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        timer.cancel()
        usages = [usage, *orphans()]
        os.sync()
        stored = time.perf_counter() - start
        errors.seek(0)
        told = {
            "seconds": seconds,
            "stored": stored,
            "cpu": sum(used.ru_utime + used.ru_stime for used in usages),
            "rss": max(used.ru_maxrss for used in usages) * 1024,
            "code": os.waitstatus_to_exitcode(status),
            "errors": errors.read().decode(errors="replace")[-2000:],
        }
    json.dump(told, sys.stdout)


main()
