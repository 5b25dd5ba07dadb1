"""Dask (https://distributed.dask.org) as an engine: shards are made by the workers of a cluster.

Dask gives the tasks of a worker that is lost to others. A task that was begun twice writes the same bytes twice: a
shard appears whole or not at all, so that nobody notices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from importlib.metadata import version
from typing import Any

from atdata_cli.errors import AtdataError, MissingExtraError, TemporaryError, UsageError

__all__ = ["DaskEngine"]

_CONNECT_SECONDS = 5
_STOPPING_SECONDS = 60
_RETRIES = 3  # of a task whose worker was lost, besides what Dask allows by itself


class DaskEngine:
    """A Dask cluster.

    Parameters
    ----------
    url : ``dask://HOST:PORT`` of its scheduler.

    Raises
    ------
    MissingExtraError : Dask is not installed.
    TemporaryError : the scheduler does not answer, or has no workers.
    UsageError : the workers have another version of this program, or none.
    """

    def __init__(self, url: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingExtraError("the Dask engine", extra="dask", url=url) from error
        self._url = url
        make_client: Any = distributed.Client
        try:
            self._client = make_client(
                f"tcp://{url.partition('://')[2]}", timeout=_CONNECT_SECONDS, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise TemporaryError(
                f"the Dask scheduler cannot be reached: {error}", url=url, hint="is it running? dask scheduler"
            ) from error
        try:
            self.jobs = self._check_workers()
        except BaseException:
            self.close()
            raise

    def _check_workers(self) -> int:
        here = worker_version()
        threads = self._client.nthreads()
        if not threads:
            raise TemporaryError(
                "the Dask cluster has no workers", url=self._url, hint="start some: dask worker ADDRESS"
            )
        try:
            versions = set(self._client.run(worker_version).values())
        except Exception as error:  # whatever a worker that lacks the module answers
            raise UsageError(
                f"a Dask worker cannot run this program: {error}",
                url=self._url,
                hint=f"install atdata-cli=={here} where the workers are",
            ) from error
        if versions != {here}:
            found = ", ".join(sorted(versions))
            raise UsageError(
                f"the Dask workers have version {found}, this is {here}",
                url=self._url,
                hint="install the same version in both places",
            )
        return sum(threads.values())

    def executor(self) -> Executor:
        """See :class:`atdata_cli.shards.engines.Engine`."""
        return _DaskExecutor(self._client, self._url)

    def close(self) -> None:
        """See :class:`atdata_cli.shards.engines.Engine`."""
        self._client.close()


class _DaskExecutor(Executor):
    """Dask's own executor, whose errors are ours, and which can be waited for when it is stopped."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url
        self._executor = client.get_executor(pure=False, retries=_RETRIES)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See :class:`concurrent.futures.Executor`."""
        ours: Future[Any] = Future()
        theirs: Future[Any] = self._executor.submit(fn, *args, **kwargs)
        theirs.add_done_callback(lambda done: self._pass_on(done, ours))
        return ours

    def _pass_on(self, theirs: Future[Any], ours: Future[Any]) -> None:
        from distributed import KilledWorker

        if theirs.cancelled():
            ours.cancel()
            ours.set_running_or_notify_cancel()
            return
        error = theirs.exception()
        if error is None:
            ours.set_result(theirs.result())
        elif isinstance(error, KilledWorker):
            lost = AtdataError(
                "several Dask workers died over the same shard",
                url=self._url,
                hint="were they killed for want of memory? the same command goes on where this one was",
            )
            lost.__cause__ = error
            ours.set_exception(lost)
        else:
            ours.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See :class:`concurrent.futures.Executor`; the connection stays."""
        self._executor.shutdown(wait=wait and not cancel_futures)

    def stop(self) -> None:
        """Take all tasks back; returns when no worker is busy with one any more."""
        self._executor.shutdown(wait=False)
        deadline = time.monotonic() + _STOPPING_SECONDS
        while any(self._client.run(running_tasks).values()) and time.monotonic() < deadline:
            time.sleep(0.1)


def worker_version() -> str:
    """The version of this program that a worker has."""
    return version("atdata-cli")


def running_tasks() -> int:
    """How many tasks run in a worker."""
    from atdata_cli.shards.making import running

    return running()
