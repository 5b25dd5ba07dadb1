"""What keeps out of the command line's process what is slow to import and not used there.

Only the program does this, never the library: torch takes seconds, all that webdataset needs for its readers takes
longer than to write a small dataset, and the models of all lexicons that the SDK of the AT Protocol knows, a third of a
second.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["import_webdataset", "leave_out"]


def import_webdataset() -> None:
    """Import webdataset without what its writers do not use; call it before any module that builds on webdataset.

    webdataset imports torch wherever it finds it, for data loaders that nobody can ask for in a process of ours. What
    its readers use is imported when they use it.
    """
    if "numpy" not in sys.modules:
        _Within({"numpy"}, _one_thread)
    with _absent("torch"), _later("numpy"), _later("yaml"), _later("urllib.request"):
        import webdataset  # noqa: F401


def leave_out() -> None:
    """Let packages find nothing of what they import for uses that no command has, whenever they are imported.

    That is httpx for aiobotocore, which s3fs is built on and which uses aiohttp then, the command line of httpx itself,
    and for the SDK of the AT Protocol the models in the annotations of its methods.
    """
    without = ModuleType("aiobotocore._httpx")
    without.__getattr__ = lambda name: None  # type: ignore[method-assign]
    sys.modules.setdefault(without.__name__, without)
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    if "atproto_client" not in sys.modules:
        _Within({"atproto_client.namespaces.async_ns", "atproto_client.namespaces.sync_ns"}, _without_models)


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


class _Within:
    """Has modules imported inside a context of ours, each once."""

    def __init__(self, names: Collection[str], context: Callable[[], AbstractContextManager[None]]) -> None:
        self._names = set(names)
        self._context = context
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of one of them, with a loader that enters the context."""
        if name not in self._names:
            return None
        self._names.remove(name)
        if not self._names:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with self._context():
                    load(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _without_models() -> Iterator[None]:
    """Give whoever asks the SDK for a model something that has only ``Any`` in it; the models of the SDK are lazy."""
    models = sys.modules.get("atproto_client.models")
    lazily = getattr(models, "__getattr__", None)
    if models is None or lazily is None:
        yield
        return
    models.__getattr__ = lambda name: _Anything()  # type: ignore[method-assign]
    try:
        yield
    finally:
        models.__getattr__ = lazily  # type: ignore[method-assign]


class _Anything:
    def __getattr__(self, name: str) -> Any:
        return Any


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
