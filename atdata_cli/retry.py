"""Repeating what failed for the moment: with growing pauses that differ between clients, and never anything else."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from atdata_cli.errors import AtdataError, RateLimitedError

__all__ = ["Retry", "seconds_to_wait"]

T = TypeVar("T")

_LONG = 2.0  # seconds after which somebody who looks on wants to know why nothing happens


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how patiently.

    Attributes
    ----------
    retries : attempts after the first one; 0 for none at all. A server that says when it will answer again is asked
        as often as it says.
    first, longest : seconds of the first and the longest pause; each is twice the one before, less up to a half of it,
        by chance, so that clients that failed together do not come back together.
    patience : seconds to wait in all for a server that says when it will answer again.
    """

    retries: int = 6
    first: float = 0.5
    longest: float = 30.0
    patience: float = 900.0

    def run(
        self,
        attempt: Callable[[], T],
        *,
        stop: threading.Event | None = None,
        meaning: Callable[[Exception], AtdataError] | None = None,
    ) -> T:
        """What *attempt* returns, in the end.

        Parameters
        ----------
        attempt : called again after an error that is ``retryable``; whatever it does must be safe to repeat.
        stop : ends a pause at once, with the error that it was made for.
        meaning : says what an error is that is none of ours; without it such an error is the end.

        Raises
        ------
        Exception : the last one, as *attempt* raised it.
        """
        failures = 0
        until = time.monotonic() + self.patience
        failing: float | None = None  # since when
        while True:
            try:
                return attempt()
            except Exception as error:
                if not isinstance(error, AtdataError) and meaning is None:
                    raise
                told = error if isinstance(error, AtdataError) or meaning is None else meaning(error)
                assert isinstance(told, AtdataError)
                pause, counts = self._after(told, failures, until)
                failures += counts
                if pause is None or failures > self.retries:
                    told.repeated = told.retryable
                    raise
                now = time.monotonic()
                failing = now if failing is None else failing
                _tell(told, pause, now - failing + pause)
                if (stop or threading.Event()).wait(pause):
                    raise

    def _after(self, error: AtdataError, failures: int, until: float) -> tuple[float | None, bool]:
        """Seconds to wait, None if it is no use; and whether this counts as a failure."""
        if not error.retryable or error.repeated or not self.retries:
            return None, False
        ours = self.pause(failures + 1)
        if not isinstance(error, RateLimitedError):
            return ours, True
        if time.monotonic() + error.wait > until:
            return None, False
        theirs = error.wait * random.uniform(1.0, 1.05)  # noqa: S311 - spreads clients, hides nothing
        # One who says "at once", again and again, is not believed for ever.
        return (theirs, False) if theirs >= ours else (ours, True)

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        longest = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, hides nothing


def _tell(error: AtdataError, pause: float, lasting: float) -> None:
    """Log why nothing happens: what the command line shows of it, and how, is its own."""
    import logging

    level = logging.WARNING if lasting >= _LONG else logging.INFO
    where = f"{error.url}: " if error.url else ""
    logging.getLogger(__name__).log(level, "%s%s; trying again in %.1f s", where, error.message, pause)


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """What an answer's ``Retry-After`` asks for, in seconds or as a date; None if there is none, or nonsense.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after

    Parameters
    ----------
    headers : of the answer; names in lower case, or a mapping that does not care.
    """
    text = (headers.get("retry-after") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    with suppress(TypeError, ValueError, OverflowError):
        now = time.time()
        with suppress(TypeError, ValueError, OverflowError):  # by its own clock, where it tells its time
            now = parsedate_to_datetime(headers.get("date") or "").timestamp()
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    return None
