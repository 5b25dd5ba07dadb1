"""The blobs of a real PDS as a store, through the public protocol."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import webdataset

from atdata_cli import AbstractDataStore, LocalStore
from atdata_cli.atproto.session import Session
from atdata_cli.errors import AtdataError, AuthError, NotFoundError, UsageError
from atdata_cli.stores.pds import PDSBlobStore
from atdata_cli.stores.testing import WriteShardsContract
from tests.servers.pds import Account

UPLOAD = "local.atdata-cli.upload"
samples = WriteShardsContract.samples


@pytest.fixture
def store(pds_account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path) -> PDSBlobStore:
    for name, value in {**pds_account.env, "XDG_STATE_HOME": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)
    return PDSBlobStore(pds_account.handle)


def in_order(blob: dict[str, Any]) -> dict[str, Any]:
    return {name: blob[name] for name in ("$type", "ref", "mimeType", "size")}


def test_write_shards(store: PDSBlobStore, pds_account: Account, tmp_path) -> None:
    assert isinstance(store, AbstractDataStore)
    assert store.supports_streaming() is True
    urls = store.write_shards(samples(5), prefix="training/v1", maxcount=2)
    local = LocalStore(tmp_path).write_shards(samples(5), prefix="training/v1", maxcount=2)
    assert isinstance(urls, list)
    assert [urls.checksums[url] for url in urls] == list(local.checksums.values())
    [tie] = pds_account.records(UPLOAD)
    assert sorted(urls.blob_refs, key=str) == sorted(map(in_order, tie["value"]["blobs"]), key=str)
    assert [ref["ref"]["$link"] for ref in urls.blob_refs] == [url.rpartition("/")[2] for url in urls]
    for url, ref in zip(urls, urls.blob_refs, strict=True):
        assert url == f"at://{pds_account.did}/blob/{ref['ref']['$link']}"
        body = httpx.get(store.read_url(url), timeout=60).content
        assert (len(body), hashlib.sha256(body).hexdigest()) == (ref["size"], urls.checksums[url])
        with store.open(ref["ref"]["$link"]) as blob:
            assert blob.read() == body
        assert store.stat(ref["ref"]["$link"]).size == len(body)  # type: ignore[union-attr]
    opened = webdataset.WebDataset([store.read_url(url) for url in urls], shardshuffle=False)
    assert [sample["__key__"] for sample in opened] == [f"{index:06d}" for index in range(5)]
    assert store.write_shards(samples(5), prefix="training/v1", maxcount=2) == urls
    for tie in store.ledger("training/v1").release(set(pds_account.blobs())):
        raise AssertionError(tie)
    assert pds_account.records(UPLOAD) == pds_account.blobs() == []
    assert store.stat(urls.blob_refs[0]["ref"]["$link"]) is None


def test_a_failing_source(store: PDSBlobStore, pds_account: Account) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield from samples(3)
        raise ConnectionError("the source broke")

    with pytest.raises((ConnectionError, AtdataError)):
        store.write_shards(failing(), prefix="broken", maxcount=2)
    # What has come there so far is known, and can be taken away.
    left = store.ledger("broken")
    left.release(set(pds_account.blobs()))
    assert pds_account.records(UPLOAD) == pds_account.blobs() == []


def test_who_may(store: PDSBlobStore, pds_account: Account, pds_server) -> None:
    other = pds_server.account()
    with pytest.raises(AuthError, match="not logged in as"):
        PDSBlobStore(other.handle).write_shards(samples(1), prefix="x")
    # Others are read by anybody, and what travels to another process holds no secret.
    with pytest.raises(NotFoundError):
        PDSBlobStore(Session.anonymous(other.did)).open("bafkrei" + "a" * 52).read()
    travelled = pickle.dumps(PDSBlobStore(store.account))
    assert pickle.loads(travelled).did == pds_account.did
    assert pds_account.password.encode() not in travelled
    assert b"Bearer" not in travelled
    for refused in (lambda: store.create("x.tar"), lambda: store.put("x", b""), lambda: store.delete("x")):
        with pytest.raises(UsageError, match="blobs without names"):
            refused()
