"""Run a command and write its peak memory to a file: ``python measure.py RESULT FILE_LIMIT COMMAND ARG...``.

A program of its own, because a child's peak begins with that of the process that starts it (the kernel counts the
memory before ``exec``), and the test runner's is larger than what is measured. FILE_LIMIT is the size in bytes that
no file may grow beyond while the command runs (``RLIMIT_FSIZE``), or ``-`` for none; 0 allows no byte in any file
system, whether its name is visible or not.
"""

import os
import resource
import subprocess
import sys


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
