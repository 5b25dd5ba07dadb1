"""Run a command and write its peak memory to a file: ``python measure.py RESULT FILE_LIMIT COMMAND ARG...``.

A program of its own, because a child's peak begins with that of the process that starts it (the kernel counts the
memory before ``exec``), and the test runner's is larger than what is measured. FILE_LIMIT is the size in bytes that
no file may grow beyond while the command runs (``RLIMIT_FSIZE``), or ``-`` for none; 0 allows no byte in any file
system, whether its name is visible or not.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def peak(result: Path, *command: str | Path, file_limit: int | None = None, **how: Any) -> tuple[int, str]:
    """Run *command* to its end, which must be a good one: its peak memory in bytes, and what it printed.

    Parameters
    ----------
    result : a file for the measurement.
    file_limit : see above.
    **how : for ``subprocess.run``.
    """
    limit = "-" if file_limit is None else str(file_limit)
    # Isolated and without site packages, so that the measuring program is small itself.
    measure = [sys.executable, "-I", "-S", __file__, result, limit]
    ran = subprocess.run([*measure, *command], capture_output=True, text=True, check=False, **how)
    assert ran.returncode == 0, ran.stderr
    return int(result.read_text()), ran.stdout


def main() -> int:
    """Run it; returns its exit code, negative for a signal."""
    result, limit, *command = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != "-":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), most))
    process = subprocess.Popen(command)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(result, "w") as file:
        file.write(str(usage.ru_maxrss * 1024))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
