"""Uploads of one name that meet each other, or were given up: none takes what another needs, none leaves anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atdata_cli import LocalStore, open_source
from atdata_cli.atproto.records import ENTRY, LABEL
from atdata_cli.atproto.values import blob_cid
from atdata_cli.errors import AtdataError, ExitCode, OccupiedError
from atdata_cli.indexes.atmosphere import AtmosphereIndex
from atdata_cli.indexes.blobs import upload as copy_into
from atdata_cli.shards.reader import Shard
from atdata_cli.shards.transfer import ShardReader, Stages
from atdata_cli.stores.base import ShardUrls
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.pds import PDSBlobStore
from tests.cli.conftest import Cli, cli
from tests.contract.test_atmosphere import before_put, counts, index, publication
from tests.contract.test_atmosphere_blobs import UPLOAD, prepared, stored, write
from tests.servers.faults import FaultyProxy, Request
from tests.servers.pds import Account

__all__ = ["cli", "index"]


def make_rows(path: Path, first: int) -> Path:
    path.write_text("".join(json.dumps({"n": n, "text": f"row {n}"}) + "\n" for n in range(first, first + 1000)))
    return path


def shards(tmp_path: Path, name: str, first: int) -> ShardUrls:
    """Ten shards; of those that begin 500 later, with their own numbers, none is equal."""
    source = open_source(str(make_rows(tmp_path / f"{name}.jsonl", first)))
    return LocalStore(str(tmp_path)).write_shards(source, prefix=name, maxcount=100)


def upload(index: AtmosphereIndex, urls: Sequence[str], name: str = "mini") -> Any:
    """What a run does before it publishes: its ledger."""
    store = PDSBlobStore(index.account)
    ledger = store.ledger(name)
    for url in urls:
        with ShardReader(Shard(url, None), StoreFiles()) as shard:
            store.upload(shard, ledger=ledger)
    ledger.flush()
    return ledger


def test_a_run_that_ends_takes_nothing_from_another(index, pds_account, tmp_path):
    first, second = shards(tmp_path, "first", 0), shards(tmp_path, "second", 500)
    ours = upload(index, first[:6])
    done = index.publish(prepared(str(tmp_path / "second"), blobs=True))  # another run, from its beginning to its end
    assert any("not finished" in text for text in done.warnings)
    assert len(pds_account.blobs()) == 6 + 10
    for url in first[:6]:
        data = Path(url).read_bytes()
        assert ours.keep(blob_cid(hashlib.sha256(data).hexdigest()), len(data)) is not None
    moved = index.publish(prepared(str(tmp_path / "first"), blobs=True))
    assert moved.status == "updated"
    assert stored(pds_account, moved.uri) == [Path(url).read_bytes() for url in first]
    assert stored(pds_account, done.uri) == [Path(url).read_bytes() for url in second]
    ours.release()
    assert pds_account.records(UPLOAD) == []


def make_old(account: Account) -> None:
    """What uploads have left is from a long time ago."""
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    for record in account.records(UPLOAD):
        key, value = record["uri"].rpartition("/")[2], {**record["value"], "createdAt": long_ago}
        body = {"repo": account.did, "collection": UPLOAD, "rkey": key, "record": value}
        account.xrpc("com.atproto.repo.putRecord", body)


def test_what_a_killed_run_of_other_data_has_left(index, pds_account, tmp_path):
    left, second = shards(tmp_path, "left", 0), shards(tmp_path, "second", 5000)
    upload(index, left)  # and here it is killed
    done = index.publish(prepared(str(tmp_path / "second"), blobs=True))
    [warning] = [text for text in done.warnings if "not finished" in text]
    assert "10 blobs" in warning
    assert "abort" in warning
    # When it must have ended, nobody has to do anything.
    make_old(pds_account)
    again = index.publish(prepared(str(tmp_path / "second"), blobs=True))
    assert (again.status, list(again.warnings)) == ("unchanged", [])
    assert pds_account.records(UPLOAD) == []
    assert len(pds_account.blobs()) == 10
    assert stored(pds_account, done.uri) == [Path(url).read_bytes() for url in second]


def test_blobs_that_are_there_are_tied_by_the_hundred(index, pds_account, tmp_path):
    shards(tmp_path, "first", 0)
    index.publish(prepared(str(tmp_path / "first"), blobs=True))
    for record in pds_account.records(LABEL):  # else all is unchanged
        body = {"repo": pds_account.did, "collection": LABEL, "rkey": record["uri"].rpartition("/")[2]}
        pds_account.xrpc("com.atproto.repo.deleteRecord", body)
    made: list[str] = []
    session = index.account
    put = session.put_record
    session.put_record = lambda collection, *rest: (made.append(collection), put(collection, *rest))[1]
    write(pds_account, tmp_path / "first.jsonl", max_count=100)
    del session.put_record
    assert pds_account.records(UPLOAD) == []
    assert len(made) <= 2


def test_equal_shards_are_one_blob(index, pds_account, tmp_path):
    [url] = LocalStore(str(tmp_path)).write_shards(open_source(str(make_rows(tmp_path / "x.jsonl", 0))), prefix="x")
    (tmp_path / "twice").mkdir()
    for name in ("a.tar", "b.tar"):
        shutil.copy(url, tmp_path / "twice" / name)
    publication = prepared(str(tmp_path / "x"), blobs=True)
    both = [Shard(str(tmp_path / "twice" / name), None, row=None) for name in ("a.tar", "b.tar")]
    publication = dataclasses.replace(
        publication,
        shards=[*publication.shards] * 2,
        located=dataclasses.replace(publication.located, shards=both),
    )
    store = PDSBlobStore(index.account)
    done = copy_into(publication, store, ledger := store.ledger("x"), Stages())
    assert len({shard.url for shard in done.shards}) == 1
    assert len(pds_account.blobs()) == 1
    ledger.release()


def test_two_runs_at_once(index, pds_account, tmp_path):
    """Each ends well or says that the other was faster, which then is the one that is there, whole."""
    places = [make_rows(tmp_path / f"{number}.jsonl", number * 300) for number in range(2)]

    def run(path: Path) -> Any:
        try:
            return write(pds_account, path, max_count=50)
        except AtdataError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, places))
    failed = [result for result in results if isinstance(result, AtdataError)]
    assert len(failed) < 2, failed
    assert {error.exit_code for error in failed} <= {ExitCode.TEMPORARY, ExitCode.OCCUPIED}, failed
    for path in places:
        done = write(pds_account, path, max_count=50)
        local = LocalStore(str(tmp_path)).write_shards(open_source(str(path)), prefix=f"out{path.stem}", maxcount=50)
        assert stored(pds_account, done.published.uri) == [Path(url).read_bytes() for url in local]
    assert pds_account.records(UPLOAD) == []
    assert len(pds_account.records(ENTRY)) == 2
    assert counts(pds_account)[0] == 1


def test_a_run_that_was_late_takes_its_upload_back(index, pds_account, tmp_path, monkeypatch):
    shards(tmp_path, "first", 0)
    other = make_rows(tmp_path / "other.jsonl", 5000)
    late = index.account
    before_put(late, LABEL, lambda: write(pds_account, other, max_count=100))
    with pytest.raises(OccupiedError, match="was faster"):
        index.publish(prepared(str(tmp_path / "first"), blobs=True))
    del late.put_record
    assert pds_account.records(UPLOAD) == []
    assert len(pds_account.blobs()) == 10
    faster = AtmosphereIndex(pds_account.handle)
    before_put(late, LABEL, lambda: faster.publish(publication()))
    assert faster.account is not late
    monkeypatch.setattr("atdata_cli.indexes.writing.AtmosphereIndex", lambda _: index)
    with pytest.raises(OccupiedError, match="was faster"):
        write(pds_account, tmp_path / "first.jsonl", max_count=100)
    assert pds_account.records(UPLOAD) == []
    assert len(pds_account.blobs()) == 10


def test_abort(cli: Cli, index, pds_account: Account, tmp_path):
    shards(tmp_path, "whole", 0)
    published = index.publish(prepared(str(tmp_path / "whole"), blobs=True))
    left = shards(tmp_path, "left", 9000)
    upload(index, left)
    upload(index, left[:3], "other")
    target = f"@{pds_account.handle}/mini"
    me = pds_account.env
    would = cli("abort", target, "-n", env=me)
    assert (would.code, len(would.lines)) == (0, 7), would.err
    assert len(pds_account.blobs()) == 20
    done = cli("abort", target, "--json", env=me).document
    assert (done["status"], done["removed"]) == ("removed", would.lines)
    assert len(pds_account.blobs()) == 13
    assert {record["value"]["name"] for record in pds_account.records(UPLOAD)} == {"other"}
    assert len(stored(pds_account, published.uri)) == 10
    assert cli("abort", target, env=me).out == ""
    cli("abort", "@local/mini").failed(2, "@HANDLE/NAME")
    cli("abort", "@somebody.test/mini", env=me).failed(4, "not logged in as")


def test_unpublish_takes_what_killed_uploads_have_left(cli: Cli, index, pds_account, tmp_path):
    whole, left = shards(tmp_path, "whole", 0), shards(tmp_path, "left", 9000)
    index.publish(prepared(str(tmp_path / "whole"), blobs=True))
    upload(index, left[:4])
    make_old(pds_account)
    upload(index, [left[3], *left[5:], whole[0]])  # this one may still be at work
    upload(index, left[:1], "other")
    target, me = f"@{pds_account.handle}/mini", pds_account.env
    gone = cli("unpublish", target, "--yes", "--json", env=me)
    assert len(gone.document["deleted"]) == 9 + 2, gone.err
    assert "is not finished: 7 blobs" in gone.err
    assert len(pds_account.blobs()) == 1 + 6 + 1
    make_old(pds_account)
    assert cli("unpublish", target, "--yes", "--quiet", env=me).code == 0
    assert len(pds_account.blobs()) == 1
    cli("unpublish", target, "--yes", env=me).failed(3, "nothing of this name")


def test_prune(cli: Cli, index, pds_account, tmp_path):
    """Each publication of something else leaves the entry of before."""
    uris = []
    for first, version in ((0, None), (300, "1.0.0"), (600, None), (2000, None)):
        path = make_rows(tmp_path / "x.jsonl", first)
        uris.append(write(pds_account, path, name="mini", max_count=1000, version=version).published.uri)
    index.publish(prepared(f"@{pds_account.handle}/mini", name="other"))
    target, me = f"@{pds_account.handle}/mini", pds_account.env
    would = cli("prune", target, "-n", env=me)
    assert (would.code, would.lines[:2], len(would.lines)) == (0, [uris[0], uris[2]], 4), would.err
    assert "2 old records and 2 blobs" in would.err
    assert len(pds_account.blobs()) == 4
    done = cli("prune", target, "--json", env=me).document
    assert (done["status"], done["removed"]) == ("removed", would.lines)
    assert len(pds_account.blobs()) == 2
    assert {record["uri"] for record in pds_account.records(ENTRY)} >= {uris[1], uris[3]}
    assert cli("inspect", f"{target}@1.0.0", "--verify", env=me).code == 0
    assert cli("prune", target, env=me).out == ""
    cli("prune", f"@{pds_account.handle}/none", env=me).failed(3, "nothing of this name")
    for no in ("@local/mini", f"{target}@1.0.0", f"@{pds_account.handle}"):
        cli("prune", no, env=me).failed(2, "@HANDLE/NAME")


def sent(proxy: FaultyProxy) -> list[Request]:
    """Uploads; what finds out the limit sends no body."""
    return [one for one in proxy.requests("POST", "uploadBlob") if one.received]


def test_a_version_that_is_taken_is_told_before_the_upload(index, pds_account, tmp_path, monkeypatch):
    path = make_rows(tmp_path / "x.jsonl", 0)
    with FaultyProxy(pds_account.pds_url) as proxy:
        monkeypatch.setenv("ATDATA_PDS_URL", proxy.url)
        done = write(pds_account, path, max_count=100, version="1.0.0")
        assert len(sent(proxy)) == 10
        assert write(pds_account, path, max_count=100, version="1.0.0").published.status == "unchanged"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:550], lines[550].replace("row", "other"), *lines[551:]]))
        with pytest.raises(OccupiedError, match=r"mini@1\.0\.0 names another dataset"):
            write(pds_account, path, max_count=100, version="1.0.0")
        path.write_text("".join(lines[:900]))  # nothing new in it, and still another
        with pytest.raises(OccupiedError, match=r"mini@1\.0\.0 names another dataset"):
            write(pds_account, path, max_count=100, version="1.0.0")
        assert len(sent(proxy)) == 10
        index.publish(publication(version="2.0.0"))
        with pytest.raises(OccupiedError, match=r"mini@2\.0\.0 names another dataset"):
            write(pds_account, path, max_count=100, version="2.0.0")
        assert len(sent(proxy)) == 10
    assert pds_account.records(UPLOAD) == []
    assert len(stored(pds_account, done.published.uri)) == 10
