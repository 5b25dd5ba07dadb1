"""The public protocol of a store, and what all built-in stores share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

from atdata_cli.shards.protocols import ObjectInfo, ShardSink

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["AbstractDataStore", "Session", "ShardUrls", "StoreBase"]


@runtime_checkable
class AbstractDataStore(Protocol):
    """Where shards live, as the Python library ``atdata`` defines it: exactly these three methods."""

    def write_shards(self, ds: Any, *, prefix: str, **kwargs: Any) -> list[str]:
        """Write a dataset's shards.

        Parameters
        ----------
        ds : a source of this package, any iterable of sample mappings, or an ``atdata.Dataset``.
        prefix : folder inside the store.
        **kwargs : what the store offers, such as ``maxcount`` and ``maxsize``.

        Returns
        -------
        One URL a shard, in order, for WebDataset or ``atdata.Dataset``.
        """

    def read_url(self, url: str) -> str:
        """A URL that WebDataset can open directly for a URL that :meth:`write_shards` returned."""

    def supports_streaming(self) -> bool:
        """False if data must be downloaded whole before it can be read."""


class ShardUrls(list[str]):
    """Shard URLs in order, with their hashes.

    ``atdata.Index`` reads ``checksums`` of the list that a store returns and keeps them with the entry.

    Attributes
    ----------
    checksums : URL to sha256 in hex.
    """

    def __init__(self, urls: list[str], checksums: dict[str, str]) -> None:
        super().__init__(urls)
        self.checksums = checksums


class Session(NamedTuple):
    """Temporary credentials. What they sign ends with them.

    Attributes
    ----------
    end : when that is, with its time zone; None if the credentials do not tell.
    """

    end: datetime | None


class StoreBase(ABC):
    """A built-in store: the three public methods over the ones that the sharding job uses.

    A subclass implements :class:`atdata_cli.shards.protocols.ShardStore`; ``write_shards`` comes from here.

    Attributes
    ----------
    expires : seconds for which the URLs of :meth:`read_url` are good; None in a store that signs none.
    portable : whether the store, sent to another process, is the same place there.
    """

    atomic: bool = True
    writable: bool = True
    expires: int | None = None
    portable: bool = False

    def write_shards(self, ds: Any, *, prefix: str, **kwargs: Any) -> ShardUrls:
        """Write *ds* as a dataset under *prefix*: its shards and, last, its ``manifest.json``.

        Parameters
        ----------
        ds : a source (``atdata_cli.open_source``), any iterable of mappings with or without ``__key__``, or an
            ``atdata.Dataset``. Mappings whose fields are all bytes become one member a field, others one
            ``.msgpack`` member a sample.
        prefix : folder inside the store.
        **kwargs : ``maxcount`` and ``maxsize`` as in ``webdataset.ShardWriter``, and the fields of
            ``atdata_cli.shards.job.WriteOptions``. ``cache_local``, which ``atdata.Index`` passes, has no effect.

        Raises
        ------
        OccupiedError : the prefix holds another dataset.
        DataError : samples that cannot be written; nothing stays behind.
        """
        from atdata_cli.shards.write import write_dataset

        result = write_dataset(ds, self, prefix.strip("/"), **kwargs)
        rows = {self.url(name): row.sha256 for name, row in result.shards()}
        return ShardUrls(list(rows), rows)

    def read_url(self, url: str) -> str:
        """A URL that WebDataset opens as it is."""
        return url

    def read_urls(self, urls: Sequence[str]) -> Sequence[str]:
        """:meth:`read_url` of many."""
        return [self.read_url(url) for url in urls]

    def session(self) -> Session | None:
        """The temporary credentials that sign URLs; None if URLs live as long as :attr:`expires` says."""
        return None

    def supports_streaming(self) -> bool:
        """True: every built-in store can be read from the first byte on."""
        return True

    @abstractmethod
    def url(self, name: str) -> str:
        """See :class:`~atdata_cli.shards.protocols.ShardStore`, as for the methods below."""

    @abstractmethod
    def create(self, name: str) -> ShardSink: ...  # noqa: D102

    @abstractmethod
    def open(self, name: str) -> BinaryIO: ...  # noqa: D102

    @abstractmethod
    def read(self, name: str) -> bytes | None: ...  # noqa: D102

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]: ...  # noqa: D102

    @abstractmethod
    def stat(self, name: str) -> ObjectInfo | None: ...  # noqa: D102

    @abstractmethod
    def put_if_absent(self, name: str, data: bytes) -> bool: ...  # noqa: D102

    @abstractmethod
    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool: ...  # noqa: D102

    @abstractmethod
    def delete(self, name: str) -> None: ...  # noqa: D102

    def put(self, name: str, data: bytes) -> None:  # noqa: D102
        sink = self.create(name)
        try:
            sink.write(data)
            sink.commit()
        except BaseException:
            sink.abort()
            raise

    def delete_many(self, names: Sequence[str]) -> None:  # noqa: D102
        for name in names:
            self.delete(name)

    def leftovers(self, prefix: str, of: Callable[[str], bool] | None = None) -> Sequence[str]:  # noqa: D102
        return []

    def clean(self, prefix: str, of: Callable[[str], bool] | None = None) -> Sequence[str]:  # noqa: D102
        names = self.leftovers(prefix, of)
        self.delete_many(names)
        return names
