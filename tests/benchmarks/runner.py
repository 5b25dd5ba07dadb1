"""Runs one program and tells what it took: JSON in, JSON out.

A process of its own, because the peak memory of a program counts that of the process that started it, up to the
moment when the one becomes the other: this one is small.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time


def main():
    """Read ``[arguments, environment, seconds at most]``, write what it took."""
    arguments, environment, longest = json.load(sys.stdin)
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
        errors.seek(0)
        told = {
            "seconds": seconds,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss": usage.ru_maxrss * 1024,
            "code": os.waitstatus_to_exitcode(status),
            "errors": errors.read().decode(errors="replace")[-2000:],
        }
    json.dump(told, sys.stdout)


main()
