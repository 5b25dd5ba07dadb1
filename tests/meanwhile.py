"""Two runs at once, in an order that can be repeated."""

from __future__ import annotations

from collections.abc import Callable

from atdata_cli.stores.base import StoreBase


class Meanwhile:
    """A store on which another run does something just before the call of a number."""

    def __init__(self, store: StoreBase, number: int, act: Callable[[], object]) -> None:
        self._store = store
        self._left = number
        self._act = act
        self.acted = False

    def __getattr__(self, name: str) -> object:
        value = getattr(self._store, name)
        if not callable(value) or name == "url":
            return value

        def call(*args: object, **options: object) -> object:
            self._left -= 1
            if self._left < 0 and not self.acted:
                self.acted = True
                self._act()
            return value(*args, **options)

        return call
