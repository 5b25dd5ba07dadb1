"""Kills the program that it is loaded into after so many bytes, exactly: ``kill -9`` at a place that can be repeated.

Or, instead, lets something happen to it just then.

Python imports this module by its name at every start, where ``PYTHONPATH`` names its folder; nothing of the program is
changed but that its calls of the system are counted. Bytes written to files count one each; every other change of the
file system (a name that appears, moves, goes; a sync) counts :data:`STEP`, so that kills come between such steps, too.

``TORTURE_KILL`` is ``COUNTER:LIMIT``: a file that all processes of a run count in, and the number at which the first of
them, which started the others, is killed. The write that reaches it writes the bytes up to it. With ``TORTURE_DO`` that
command of the shell is run to its end, and the program goes on.
"""

import fcntl
import os
import signal
import stat
import threading

STEP = 32 << 10


class _Counter:
    def __init__(self, path, limit, victim):
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._limit = limit
        self._victim = victim
        self._do = os.environ.get("TORTURE_DO")
        self._turn = threading.Lock()
        self._write = os.write

    def _reached(self, amount):
        """Count; where within *amount* the end is, for the one call that reaches it; None for all others."""
        with self._turn:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                before = int(os.pread(self._descriptor, 20, 0) or b"0")
                os.pwrite(self._descriptor, b"%020d" % (before + amount), 0)
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return self._limit - before if before < self._limit <= before + amount else None

    def _kill(self):
        if self._do:
            os.system(self._do)
        else:
            os.kill(self._victim, signal.SIGKILL)

    def write(self, descriptor, data, /):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return self._write(descriptor, data)
        data = memoryview(data).cast("B")
        room = self._reached(len(data))
        if room is None:
            return self._write(descriptor, data)
        written = self._write(descriptor, data[:room])
        self._kill()
        return written  # short, as a write may be

    def step(self, function):
        def counted(*arguments, **options):
            room = self._reached(STEP)
            before = room is not None and room <= STEP // 2
            if before:
                self._kill()
            result = function(*arguments, **options)
            if room is not None and not before:
                self._kill()
            return result

        return counted


def _begin():
    told = os.environ.get("TORTURE_KILL")
    if not told:
        return
    path, _, limit = told.rpartition(":")
    victim = os.environ.setdefault("TORTURE_VICTIM", str(os.getpid()))
    counter = _Counter(path, int(limit), int(victim))
    os.write = counter.write
    for name in ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "utime"):
        setattr(os, name, counter.step(getattr(os, name)))


_begin()
