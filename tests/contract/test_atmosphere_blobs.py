"""Datasets in a PDS: copied there, or written straight into it, with the entry that keeps them alive."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from atdata_cli import LocalStore, open_source
from atdata_cli.atproto import blobs
from atdata_cli.atproto.records import ENTRY, LABEL
from atdata_cli.errors import IntegrityError, NotFoundError, OccupiedError, UsageError
from atdata_cli.indexes.atmosphere import AtmosphereIndex
from atdata_cli.indexes.base import Publication
from atdata_cli.indexes.lookup import lookup
from atdata_cli.indexes.publication import prepare
from atdata_cli.indexes.writing import write_entry
from atdata_cli.refs import parse
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.reader import Shard
from atdata_cli.shards.transfer import ShardReader
from atdata_cli.stores.inputs import StoreFiles
from tests.contract.test_atmosphere import counts, index
from tests.servers.pds import Account, run_pds

UPLOAD = "local.atdata-cli.upload"
__all__ = ["index"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}", "n": n, "x": n / 7}) + "\n" for n in range(1000)))
    return path


def prepared(place: str, files: StoreFiles | None = None, *, name: str = "mini", **said: Any) -> Publication:
    files = files or StoreFiles()
    return prepare(lookup(place, files).located, files, name=name, **said)


def blob(account: Account, cid: str) -> bytes:
    """A blob, as anybody gets it."""
    import httpx

    url = f"{account.pds_url}/xrpc/com.atproto.sync.getBlob"
    answer = httpx.get(url, params={"did": account.did, "cid": cid}, timeout=60)
    assert answer.is_success, answer.text
    return answer.content


def stored(account: Account, uri: str) -> list[bytes]:
    """The shards of an entry, read from the server."""
    [value] = [record["value"] for record in account.records(ENTRY) if record["uri"] == uri]
    return [blob(account, one["blob"]["ref"]["$link"]) for one in value["storage"]["blobs"]]


def test_shards_go_into_the_pds_as_they_are(index, pds_account, rows, tmp_path):
    urls = LocalStore(str(tmp_path)).write_shards(open_source(str(rows)), prefix="out", maxcount=100)
    planned = index.publish(prepared(str(tmp_path / "out"), blobs=True), dry_run=True)
    assert planned.status == "planned"
    assert (counts(pds_account), pds_account.blobs()) == ((0, 0, 0), [])
    done = index.publish(prepared(str(tmp_path / "out"), blobs=True, description="d"))
    assert done.status == "published"
    assert stored(pds_account, done.uri) == [Path(url).read_bytes() for url in urls]
    assert pds_account.records(UPLOAD) == []
    # What a dry run printed is what was written, but for times and keys.
    assert planned.records[1][1]["storage"] == done.records[1][1]["storage"]
    [entry] = [record["value"] for record in pds_account.records(ENTRY)]
    assert entry["size"] == {"samples": 1000, "shards": 10, "bytes": sum(Path(url).stat().st_size for url in urls)}
    again = index.publish(prepared(str(tmp_path / "out"), blobs=True))
    assert (again.status, again.uri) == ("unchanged", done.uri)
    # Published from where it is now: still the same.
    here = index.publish(prepared(f"@{pds_account.handle}/mini"))
    assert (here.status, here.uri) == ("unchanged", done.uri)
    found = AtmosphereIndex(pds_account.did).find("mini")
    assert [shard.sha256 for shard in found.shards] == [urls.checksums[url] for url in urls]
    assert all(shard.url.startswith(f"at://{pds_account.did}/blob/") for shard in found.shards)


def names(shard: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        return tar.getnames()


def test_shards_over_the_limit_are_made_anew(pds_server, monkeypatch, tmp_path, rows):
    with run_pds(tmp_path / "pds", plc_url=pds_server.plc_url, blob_limit=1 << 20) as pds:
        account = pds.account()
        for name, value in account.env.items():
            monkeypatch.setenv(name, value)
        source = tmp_path / "big.jsonl"
        source.write_text("".join(json.dumps({"n": n, "text": "x" * 1000}) + "\n" for n in range(5000)))
        LocalStore(str(tmp_path)).write_shards(open_source(str(source)), prefix="big")
        index = AtmosphereIndex(account.handle)
        planned = index.publish(prepared(str(tmp_path / "big"), blobs=True), dry_run=True)
        assert (account.blobs(), counts(account)) == ([], (0, 0, 0))
        done = index.publish(prepared(str(tmp_path / "big"), blobs=True))
        shards = stored(account, done.uri)
        assert len(shards) > 7
        assert max(map(len, shards)) <= 1 << 20
        assert planned.records[1][1]["storage"] == done.records[1][1]["storage"]
        assert (
            list(planned.warnings) == list(done.warnings) == ["re-sharded: 1 shard over the server's limit of 1.0 MiB"]
        )
        assert [name for shard in shards for name in names(shard)] == [f"{n:010d}.msgpack" for n in range(5000)]
        assert account.records(UPLOAD) == []
        again = index.publish(prepared(str(tmp_path / "big"), blobs=True))
        assert (again.status, again.uri) == ("unchanged", done.uri)
        assert len(account.blobs()) == len(shards)
        assert account.records(UPLOAD) == []
        # The server tells too late that one is too large: the others are there, and tied.
        monkeypatch.setitem(blobs._found_limits, account.pds_url, blobs.MAX_BLOB_BYTES)
        sizes = [10] * 900 + [20_000] * 100
        source.write_text("".join(json.dumps({"n": n, "text": "x" * size}) + "\n" for n, size in enumerate(sizes)))
        LocalStore(str(tmp_path)).write_shards(open_source(str(source)), prefix="late", maxcount=100)
        late = index.publish(prepared(str(tmp_path / "late"), blobs=True, name="late"))
        made = stored(account, late.uri)
        assert [name for shard in made for name in names(shard)] == [f"{n:010d}.msgpack" for n in range(1000)]
        assert len(account.blobs()) == len(shards) + len(made)
        assert account.records(UPLOAD) == []


def test_a_shard_that_is_not_what_the_manifest_says_is_not_published(index, pds_account, rows, tmp_path):
    [url] = LocalStore(str(tmp_path)).write_shards(open_source(str(rows)), prefix="out")
    data = bytearray(Path(url).read_bytes())
    data[1000] ^= 1
    Path(url).write_bytes(data)
    with pytest.raises(IntegrityError, match="its SHA-256 is"):
        index.publish(prepared(str(tmp_path / "out"), blobs=True))
    assert (counts(pds_account), pds_account.blobs()) == ((0, 0, 0), [])


def write(account: Account, source: Path, name: str = "mini", **more: Any) -> Any:
    said = {key: more.pop(key) for key in ("description", "tags") if key in more}
    version = more.pop("version", None)
    dry_run, if_exists = more.pop("dry_run", False), more.pop("if_exists", "resume")
    target = parse(f"@{account.handle}/{name}" + (f"@{version}" if version else ""))
    options = WriteOptions(name=name, **more)
    return write_entry(target, open_source(str(source)), options, said=said, dry_run=dry_run, if_exists=if_exists)


def test_rows_are_written_straight_into_the_pds(index, pds_account, rows, tmp_path):
    planned = write(pds_account, rows, max_count=100, dry_run=True)
    assert (planned.result.status, counts(pds_account), pds_account.blobs()) == ("planned", (0, 0, 0), [])
    done = write(pds_account, rows, max_count=100, description="d", tags=["t"])
    assert done.published.status == "published"
    assert planned.urls == done.urls
    assert planned.published.records[1][1]["storage"] == done.published.records[1][1]["storage"]
    assert [row.name for row in done.result.stored] == [f"shard-{n:06d}.tar" for n in range(10)]
    local = LocalStore(str(tmp_path)).write_shards(open_source(str(rows)), prefix="out", maxcount=100)
    assert stored(pds_account, done.published.uri) == [Path(url).read_bytes() for url in local]
    assert done.urls == [
        f"at://{pds_account.did}/blob/{one['blob']['ref']['$link']}"
        for one in pds_account.records(ENTRY)[0]["value"]["storage"]["blobs"]
    ]
    assert pds_account.records(UPLOAD) == []
    for dry_run in (False, True):
        again = write(pds_account, rows, max_count=100, dry_run=dry_run)
        assert (again.result.status, again.published.uri, again.urls) == ("unchanged", done.published.uri, done.urls)
        assert not again.result.stored
    assert counts(pds_account) == (1, 1, 1)
    found = AtmosphereIndex(pds_account.did).find("mini")
    assert (found.samples, found.encoding, found.description, found.tags) == (1000, "msgpack", "d", ("t",))
    assert found.job is not None
    with pytest.raises(OccupiedError):
        write(pds_account, rows, if_exists="fail")
    # Shards that did not change are not sent again, and those of the old entry live on.
    rows.write_text(rows.read_text() + json.dumps({"text": "new", "n": -1, "x": 0.5}) + "\n")
    changed = write(pds_account, rows, max_count=100, version="2.0.0")
    assert changed.published.status == "updated"
    assert len(set(changed.urls) & set(done.urls)) == 10
    assert [row.name for row in changed.result.stored] == ["shard-000010.tar"]
    assert len(stored(pds_account, done.published.uri)) == 10
    assert counts(pds_account) == (1, 2, 2)


def test_withdrawing_says_which_blobs_die(index, pds_account, rows):
    write(pds_account, rows, max_count=100)
    rows.write_text(rows.read_text() + json.dumps({"text": "new", "n": -1, "x": 0.5}) + "\n")
    other = write(pds_account, rows, name="other", max_count=100)
    assert index.plan_withdrawal("mini").deleted == []
    plan = index.plan_withdrawal("other")
    assert [shard.url for shard in plan.deleted] == other.urls[10:]
    index.withdraw(plan)
    assert len(pds_account.blobs()) == 10
    plan = index.plan_withdrawal("mini")
    assert len(plan.deleted) == 10
    assert plan.deleted_bytes == 10 * 61440 or plan.deleted_bytes > 0
    index.withdraw(plan)
    assert pds_account.blobs() == []
    with pytest.raises(NotFoundError):
        AtmosphereIndex(pds_account.did).find("mini")


def test_too_many_shards_are_told_before_the_upload(index, pds_account, rows, tmp_path):
    with pytest.raises(UsageError, match="shards"):
        write(pds_account, rows, max_count=1)
    with pytest.raises(UsageError, match="shards"):
        write(pds_account, rows, max_count=1, dry_run=True)
    LocalStore(str(tmp_path)).write_shards(open_source(str(rows)), prefix="out", maxcount=1)
    with pytest.raises(UsageError, match="1,000 shards are too many") as caught:
        index.publish(prepared(str(tmp_path / "out"), blobs=True))
    assert "fit" in str(caught.value.hint)
    assert (counts(pds_account), pds_account.blobs(), pds_account.records(UPLOAD)) == ((0, 0, 0), [], [])


def test_splits_and_compression_are_refused(index, pds_account, rows):
    with pytest.raises(UsageError, match="one split"):
        write(pds_account, rows, split="train=0.9,val=0.1")
    with pytest.raises(UsageError, match="compress"):
        write(pds_account, rows, compress="gz")
    assert (counts(pds_account), pds_account.blobs()) == ((0, 0, 0), [])


def test_a_killed_upload_is_finished_and_nothing_is_left(index, pds_account, rows, tmp_path):
    from atdata_cli.stores.pds import PDSBlobStore

    urls = LocalStore(str(tmp_path)).write_shards(open_source(str(rows)), prefix="out", maxcount=100)
    store = PDSBlobStore(index.account)
    ledger = store.ledger("mini")
    for url in urls[:4]:
        with ShardReader(Shard(url, None, sha256=urls.checksums[url]), StoreFiles()) as shard:
            store.upload(shard, ledger=ledger)
    ledger.flush()  # and here it is killed
    assert len(pds_account.blobs()) == 4
    done = index.publish(prepared(str(tmp_path / "out"), blobs=True))
    assert stored(pds_account, done.uri) == [Path(url).read_bytes() for url in urls]
    assert pds_account.records(UPLOAD) == []
    assert len(pds_account.records(LABEL)) == 1
