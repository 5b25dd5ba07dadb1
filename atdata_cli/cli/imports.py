"""What keeps out of the command line's process what is slow to import and not used there.

Only the program does this, never the library: torch takes seconds, and all that webdataset needs for its readers takes
longer than to write a small dataset; aiobotocore's second way to send requests takes a tenth of the time until the
first one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["import_webdataset", "leave_out_httpx"]


def import_webdataset() -> None:
    """Import webdataset without what its writers do not use; call it before any module that builds on webdataset.

    webdataset imports torch wherever it finds it, for data loaders that nobody can ask for in a process of ours. What
    its readers use is imported when they use it.
    """
    if "numpy" not in sys.modules:
        sys.meta_path.insert(0, _OneThread())
    with _absent("torch"), _later("numpy"), _later("yaml"), _later("urllib.request"):
        import webdataset  # noqa: F401


def leave_out_httpx() -> None:
    """Let aiobotocore, which s3fs is built on, find no httpx: it imports what it can, and uses aiohttp."""
    without = ModuleType("aiobotocore._httpx")
    without.__getattr__ = lambda name: None  # type: ignore[method-assign]
    sys.modules.setdefault(without.__name__, without)


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Make ``import name`` raise ModuleNotFoundError in this block, unless it is imported already."""
    with _in_place(name, None):
        yield


@contextmanager
def _later(name: str) -> Iterator[None]:
    """Make ``import name`` in this block give a module that is imported when something in it is called or asked for."""
    module = _LaterModule(name)
    with _in_place(name, module):
        yield
    module.importing = False


@contextmanager
def _in_place(name: str, module: ModuleType | None) -> Iterator[None]:
    if name in sys.modules:
        yield
        return
    # https://docs.python.org/3/reference/import.html#the-module-cache
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


class _LaterModule(ModuleType):
    """Stands for a module until that is needed.

    While others import it, its names are functions that import the module when they are called; that will do for
    annotations as well. Afterwards its names are those of the module.
    """

    importing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # what the import system asks for

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return call if self.importing else getattr(importlib.import_module(self.__name__), name)


class _OneThread:
    """Keeps numpy's BLAS, which nothing here uses, from threads and their memory: 40 MB for each processor there is."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of numpy, once, with a loader that lets OpenBLAS know while it is loaded."""
        if name != "numpy":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with _one_thread():
                    load(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _one_thread() -> Iterator[None]:
    """Only where BLAS is loaded: what a run starts (``--stdin-from-command``) may have other wishes."""
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)
