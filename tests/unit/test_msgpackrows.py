import datetime
import gzip

import msgpack
import pytest

from atdata_cli.errors import DataError
from atdata_cli.sources.msgpackrows import MsgpackSource
from tests.unit.rowfiles import STDIN, LocalFiles, given, numbers_of, piped, rejects_of, rows_of


def source(path, *records, tail=b""):
    content = b"".join(map(msgpack.packb, records)) + tail
    return MsgpackSource(LocalFiles(), [given(path / "rows.msgpack", content)])


def test_rows(tmp_path):
    rows = [{"i": i, "b": bytes(i % 50), "t": ["é", None, {"x": 1.5}]} for i in range(30_000)]
    found = source(tmp_path, *rows)
    assert rows_of(found) == rows
    assert [line for batch in found.batches() for line in batch.lines] == list(range(1, 30_001))
    assert max(batch.records for batch in found.batches()) == 1000
    assert found.count() is None
    assert found.position() == found.size()


def test_large_rows(tmp_path):
    rows = [{"b": bytes(size)} for size in (10, 5_000_000, 10, 600_000, 3)]
    assert rows_of(source(tmp_path, *rows)) == rows


BAD_TEXT = b"\x81\xa1a\xa2\xff\xfe"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (msgpack.packb([1, 2]), "not a map but list"),
        (msgpack.packb(5), "not a map but int"),
        (msgpack.packb({"a": [{"b": msgpack.ExtType(5, b"x")}]}), "extension type 5"),
        (msgpack.packb({"a": msgpack.Timestamp(1)}), "timestamp"),
        (
            msgpack.packb({"a": datetime.datetime(1960, 1, 1, tzinfo=datetime.UTC)}, datetime=True),
            "timestamp",
        ),
        (msgpack.packb({1: 2}), "a name that is no text"),
        (msgpack.packb({"a": {b"b": 2}}), "a name that is no text"),
        (BAD_TEXT, "not UTF-8"),
    ],
)
def test_rejects(tmp_path, record, reason):
    content = msgpack.packb({"ok": 1}) + record + msgpack.packb({"ok": 2, "b": b"\xd6\xff\xc7\x0c\xff"})
    found = MsgpackSource(LocalFiles(), [given(tmp_path / "rows.msgpack", content)])
    assert [row["ok"] for row in rows_of(found)] == [1, 2]
    assert numbers_of(found) == [0, 2]
    (reject,) = rejects_of(found)
    assert reason in reject.reason
    assert reject.where == f"{tmp_path}/rows.msgpack:2"


def test_truncated(tmp_path):
    whole = msgpack.packb({"a": 1})
    with pytest.raises(DataError, match=f"begins at byte {len(whole)} is not complete") as caught:
        rows_of(source(tmp_path, {"a": 1}, tail=msgpack.packb({"text": "x" * 100})[:-1]))
    assert caught.value.url == f"{tmp_path}/rows.msgpack"


@pytest.mark.parametrize("tail", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_heads_that_promise_too_much(tmp_path, tail):
    with pytest.raises(DataError, match="not complete"):
        rows_of(source(tmp_path, {"a": 1}, tail=tail + b"\x00" * 1000))


@pytest.mark.parametrize("tail", [b"\xc1", b"\x81\xa1a" + b"\x91" * 100_000 + b"\x00"])
def test_what_is_no_msgpack(tmp_path, tail):
    with pytest.raises(DataError, match="no msgpack at byte 4"):
        rows_of(source(tmp_path, {"a": 1}, tail=tail + b"\x00" * 10))


def test_a_compressed_pipe():
    content = gzip.compress(msgpack.packb({"a": 1}) * 100_000)
    assert len(rows_of(MsgpackSource(LocalFiles(piped(content)), [STDIN]))) == 100_000


def test_many_bad_records_take_no_longer(tmp_path):
    found = MsgpackSource(LocalFiles(), [given(tmp_path / "x", (BAD_TEXT + msgpack.packb({"a": 1})) * 100_000)])
    assert sum(len(batch.rejects) for batch in found.batches()) == 100_000
    assert numbers_of(found) == list(range(1, 200_000, 2))


def test_empty(tmp_path):
    assert rows_of(source(tmp_path)) == []
