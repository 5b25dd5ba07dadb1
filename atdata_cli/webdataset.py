"""``import atdata_cli.webdataset`` teaches WebDataset to open ``s3:`` URLs, and ``at:`` URLs of blobs in a PDS.

Requests are signed when they are made, with the credentials of that moment: the normal AWS chain (environment,
profile, instance role), ``AWS_ENDPOINT_URL`` included. So training code names shards by their own URLs, which never
expire, where presigned ones would end in the middle of a long run::

    import atdata_cli.webdataset  # at the top of the program: workers that are spawned import it too
    import webdataset as wds

    dataset = wds.WebDataset("s3://my-bucket/train/shard-{000000..000063}.tar", shardshuffle=100)
    loader = wds.WebLoader(dataset.decode("pil").batched(64), batch_size=None, num_workers=8)

``atdata-cli resolve --canonical --format wds s3://my-bucket/train`` prints such a string for any dataset. The library
``atdata`` opens its URLs through WebDataset, so this serves ``atdata.Dataset`` as well. Blobs (``at://DID/blob/CID``)
are public: nothing is signed, and what is read is checked by its CID.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from webdataset.gopen import gopen_schemes

from atdata_cli.stores.base import AbstractDataStore
from atdata_cli.stores.registry import open_store

__all__ = ["open_at", "open_s3"]

# By bucket. A store connects at first use, and again in a process that was forked: nothing is to be done for workers.
_stores: dict[str, AbstractDataStore] = {}


def open_s3(url: str, mode: str = "rb", bufsize: int = 0, **_: Any) -> BinaryIO:
    """Open an object for reading from the first byte to the last, 4 MiB a request and the next one on the way.

    Parameters
    ----------
    url : ``s3://BUCKET/KEY``.
    mode : ``rb``.
    bufsize : not used; WebDataset passes it to every opener.

    Raises
    ------
    ValueError : *mode* is another one.
    AtdataError : the object is not there, or may not be read.
    """
    from atdata_cli.stores.s3 import S3DataStore

    if mode != "rb":
        raise ValueError(f"{mode}: s3: URLs are opened for reading only")
    opened, name = open_store(url)
    assert isinstance(opened, S3DataStore)
    store = _stores.setdefault(opened.bucket, opened)
    assert isinstance(store, S3DataStore)
    return store.open(name)


def open_at(url: str, mode: str = "rb", bufsize: int = 0, **_: Any) -> BinaryIO:
    """Open a blob in a PDS for reading from the first byte to the last; the last ones come if it is what its CID says.

    Parameters
    ----------
    url : ``at://DID/blob/CID``.
    mode : ``rb``.
    bufsize : not used; WebDataset passes it to every opener.

    Raises
    ------
    ValueError : *mode* is another one.
    AtdataError : the blob is not there, or damaged.
    """
    from atdata_cli.stores.pds import PDSBlobStore

    if mode != "rb":
        raise ValueError(f"{mode}: at: URLs are opened for reading only")
    store, name = open_store(url)
    assert isinstance(store, PDSBlobStore)
    return store.open(name)


gopen_schemes["s3"] = open_s3
gopen_schemes["at"] = open_at
