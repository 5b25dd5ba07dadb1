"""How large the writes to a disk are.

The kernel takes memory for the page cache in blocks as large as the write asks for. Large writes save calls, and with
them a third of the time. But there may be no large block left that was in use lately: then it has to be fetched from
far away (in a virtual machine from its host), at up to seven times the cost of the small ones that are lying around.
Which of these is so depends on what else runs and ran, so it is measured.
"""

from __future__ import annotations

import os
import time

__all__ = ["DiskWrites"]

_LARGE, _SMALL = 128 << 10, 16 << 10
_WORTH_TIMING = 1 << 20
_TRIAL_EVERY = 16
_TRIAL_BYTES = 256 << 10


class DiskWrites:
    """Writes by the size that cost less processor time a byte; the other one is tried now and then.

    May be used by several threads at a time: they see each other's costs.
    """

    def __init__(self) -> None:
        self._costs = {_LARGE: 0.0, _SMALL: 0.0}
        self._turn = 0

    def write(self, descriptor: int, data: memoryview) -> None:
        """Write all of *data*, which are bytes, to a file."""
        if len(data) < _WORTH_TIMING:
            _write(descriptor, data, _LARGE)
            return
        self._turn += 1
        if self._turn % _TRIAL_EVERY == 0:
            self._time(descriptor, data[:_TRIAL_BYTES], max(self._costs, key=self._costs.__getitem__))
            data = data[_TRIAL_BYTES:]
        self._time(descriptor, data, min(self._costs, key=self._costs.__getitem__))

    def _time(self, descriptor: int, data: memoryview, size: int) -> None:
        begun = time.thread_time()
        _write(descriptor, data, size)
        self._costs[size] = (time.thread_time() - begun) / len(data)


def _write(descriptor: int, data: memoryview, size: int) -> None:
    while data:  # a signal or a disk that is nearly full makes short writes
        data = data[os.write(descriptor, data[:size]) :]
