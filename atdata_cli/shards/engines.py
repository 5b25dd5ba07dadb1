"""Who does the work of a run: this machine's processes, or an engine that runs on many machines.

An engine is a :class:`concurrent.futures.Executor`; that is all that a run knows of it. What it is given is a function
of this package and small descriptions of shards, never data and never credentials: its workers read, write and log in
by what they find in their own environment.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Protocol

from atdata_cli.errors import AtdataError, UsageError
from atdata_cli.refs import scheme
from atdata_cli.shards.dividing import Workers, start_processes

__all__ = ["ENGINES", "GROUP", "Engine", "open_engine"]

GROUP = "atdata_cli.engines"
"""Entry-point group: the name is a scheme, the object is called with the engine's URL and returns an
:class:`Engine`."""

ENGINES: Mapping[str, str] = {"dask": "atdata_cli.shards.daskengine:DaskEngine"}
"""Built-in schemes and their classes, imported at first use."""

LOCAL = "local"


class Engine(Protocol):
    """A connection to an engine.

    Attributes
    ----------
    jobs : how many tasks it runs at a time.
    """

    jobs: int

    def executor(self) -> Executor:
        """What runs the tasks of one pass; it may have a method ``stop`` that returns when none runs any more."""

    def close(self) -> None:
        """Let go of the connection."""


@contextmanager
def open_engine(
    text: str, jobs: int, *, start: Callable[[int], Executor] = start_processes, smallest: int | None = None
) -> Iterator[Workers]:
    """The workers that ``--engine`` names.

    Parameters
    ----------
    text : ``local``, or an engine's URL.
    jobs : processes of the local engine.
    start : starts these.
    smallest : input bytes of a piece at least; None for what is sensible.

    Raises
    ------
    UsageError : there is no such engine.
    AtdataError : it cannot be reached.
    """
    if text == LOCAL:
        yield Workers(jobs, start=start)
        return
    engine = _engine(text)
    try:
        workers = Workers(engine.jobs, worth=0, start=lambda jobs: engine.executor(), remote=text)
        if smallest is not None:
            workers = Workers(engine.jobs, worth=0, start=workers.start, remote=text, smallest=smallest)
        yield workers
    finally:
        engine.close()


def _engine(url: str) -> Engine:
    kind = scheme(url)
    target = ENGINES.get(kind)
    if target is not None:
        module, _, name = target.partition(":")
        engine: Engine = getattr(importlib.import_module(module), name)(url)
        return engine
    from importlib.metadata import entry_points

    found = [point for point in entry_points(group=GROUP) if point.name == kind]
    if not kind or not found:
        known = ", ".join([LOCAL, *(f"{name}://HOST:PORT" for name in ENGINES)])
        raise UsageError(f"--engine {url}: there is no such engine", hint=f"known are {known}, and those of plugins")
    try:
        made: Engine = found[0].load()(url)
    except (ImportError, AttributeError) as error:
        raise AtdataError(f"the plugin for '{kind}:' cannot be loaded: {error}", hint="install it again") from error
    return made
