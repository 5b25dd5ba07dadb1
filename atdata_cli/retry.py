"""Repeating what failed for the moment: with growing pauses that differ between clients, and never anything else."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from atdata_cli.errors import AtdataError, RateLimitedError

__all__ = ["Retry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how patiently.

    Attributes
    ----------
    retries : attempts after the first one. A server that says when it will answer again is asked as often as it says.
    first, longest : seconds of the first and the longest pause; each is twice the one before, less up to a half of it,
        by chance, so that clients that failed together do not come back together.
    patience : seconds to wait in all for a server that says when it will answer again.
    """

    retries: int = 6
    first: float = 0.5
    longest: float = 30.0
    patience: float = 900.0

    def run(self, attempt: Callable[[], T], *, stop: threading.Event | None = None) -> T:
        """What *attempt* returns, in the end.

        Parameters
        ----------
        attempt : called again after an error that is ``retryable``; whatever it does must be safe to repeat.
        stop : ends a pause at once, with the error that it was made for.

        Raises
        ------
        AtdataError : the last one.
        """
        failures = 0
        until = time.monotonic() + self.patience
        while True:
            try:
                return attempt()
            except AtdataError as error:
                if not error.retryable:
                    raise
                if isinstance(error, RateLimitedError):
                    pause = error.wait * random.uniform(1.0, 1.05)  # noqa: S311 - spreads clients, hides nothing
                    if time.monotonic() + error.wait > until:
                        raise
                else:
                    failures += 1
                    if failures > self.retries:
                        raise
                    pause = self.pause(failures)
                if (stop or threading.Event()).wait(pause):
                    raise

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        longest = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, hides nothing
