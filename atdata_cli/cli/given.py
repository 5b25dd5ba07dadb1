"""What a run was given, whoever read its command line: the configuration, named stores, and options that all share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from atdata_cli.cli.settings import NamedStore, Settings
from atdata_cli.errors import UsageError
from atdata_cli.refs import scheme

if TYPE_CHECKING:
    from atdata_cli.indexes.registry import IndexOptions
    from atdata_cli.stores.registry import StoreOptions

__all__ = [
    "begin",
    "events",
    "expand",
    "index_options",
    "note_typed",
    "settings",
    "store_options",
    "use_network",
    "want_events",
]


class _Given:
    """That of this process, which runs one command.

    Attributes
    ----------
    settings : the configuration, once it has been read.
    stores : operand to the named stores in it.
    typed : names of the parameters that stand on the command line.
    events : ``--json-events`` is among them.
    """

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.stores: dict[str, list[NamedStore]] = {}
        self.typed: Collection[str] = ()
        self.events = False


_given = _Given()


def begin(found: Settings) -> None:
    """From here on this is the configuration."""
    _given.settings = found
    _given.stores = {}


def note_typed(names: Collection[str]) -> None:
    """Say which parameters stand on the command line."""
    _given.typed = names


def want_events(*, wanted: bool) -> None:
    """Say whether ``--json-events`` is given."""
    _given.events = wanted


def events() -> bool:
    """Whether ``--json-events`` is given."""
    return _given.events


def settings() -> Settings:
    """The configuration of this run."""
    assert _given.settings is not None
    return _given.settings


def expand(text: str, operand: str) -> str:
    """The URL of ``NAME:PATH``, whose store is remembered for :func:`store_options`; other texts as they are.

    Parameters
    ----------
    operand : which one this is: two may lie in buckets of one name, on different servers.
    """
    url, store = settings().expand(text)
    if store is not None:
        _given.stores.setdefault(operand, []).append(store)
    return url


def store_options(
    endpoint_url: str | None,
    profile: str | None,
    region: str | None,
    pairs: Sequence[str] | None,
    *,
    operand: str | None = None,
    prefix: str = "",
    anonymous: bool = False,
) -> StoreOptions:
    """How stores are reached, from the options that all commands share, and the user's named stores.

    Parameters
    ----------
    operand : the one whose named stores count; None for all.
    prefix : of the options' names, where a command has them twice.
    anonymous : send no credentials.

    Raises
    ------
    UsageError : a pair is not ``KEY=VALUE``, or one bucket would be on two servers.
    """
    from atdata_cli.stores.registry import StoreOptions, place_key

    values = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"-o {pair}: KEY=VALUE is needed")
        values[name] = value
    base = StoreOptions(endpoint_url, profile, region, anonymous, values)
    if not settings().stores:
        return base
    reached = {store.name: _reached(store, base, prefix) for store in settings().stores.values()}
    named: dict[str, StoreOptions] = {}
    for name, stores in _given.stores.items():
        for store in stores if operand in (None, name) else ():
            place = place_key(store.url)
            if scheme(place) and named.setdefault(place, reached[store.name]) != reached[store.name]:
                raise UsageError("this name means two places, on different servers", url=place, hint="one at a time")
    known = tuple((place_key(store.url), reached[name]) for name, store in settings().stores.items())
    return replace(base, named=named, known=known)


def _reached(store: NamedStore, base: StoreOptions, prefix: str) -> StoreOptions:
    """How a named store is reached: what was typed counts more than what it says, everything else less."""
    typed = {name: f"{prefix}{name}" in _given.typed for name in ("endpoint_url", "profile", "region")}
    return replace(
        base,
        endpoint_url=base.endpoint_url if typed["endpoint_url"] else store.endpoint_url or base.endpoint_url,
        profile=base.profile if typed["profile"] else store.profile or base.profile,
        region=base.region if typed["region"] else store.region or base.region,
        anonymous=base.anonymous or store.no_sign_request,
        options={**store.options, **base.options},
    )


def use_network(retries: int | None, timeout: float | None, ca_bundle: str | None) -> None:
    """How servers are met, from the options that all commands share, in all of this run."""
    if (retries, timeout, ca_bundle) != (None, None, None):
        from atdata_cli.net import configure

        configure(retries=retries, timeout=timeout, ca_bundle=ca_bundle)


def index_options(file: str | None, stores: StoreOptions) -> IndexOptions:
    """How indexes are reached."""
    from atdata_cli.indexes.registry import IndexOptions

    return IndexOptions(file=file, stores=stores)
