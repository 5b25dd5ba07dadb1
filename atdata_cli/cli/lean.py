"""What keeps torch out of the command line's process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["import_webdataset"]


def import_webdataset() -> None:
    """Import webdataset as if torch were not installed; call it before any module that builds on webdataset.

    webdataset imports torch wherever it finds it, for data loaders that no command uses, and that takes seconds. Only
    the program does this, never the library: in a process of ours nobody can ask webdataset for a loader.
    """
    with _absent("torch"):
        import webdataset  # noqa: F401


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Make ``import name`` raise ModuleNotFoundError in this block, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    # https://docs.python.org/3/reference/import.html#the-module-cache
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
