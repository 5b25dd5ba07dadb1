import gzip
import itertools
import json

import msgpack
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from atdata_cli.errors import DataError, NotFoundError, UsageError
from atdata_cli.samples.codec import packer
from atdata_cli.sources.base import InputFile, PackedBatch
from atdata_cli.sources.jsonl import JsonlSource, may_hold_long_integers, parse_lines
from atdata_cli.sources.rows import count_lines
from tests.unit.rowfiles import STDIN, LocalFiles, given, numbers_of, piped, rejects_of, rows_of


def source(path, content):
    return JsonlSource(LocalFiles(), [given(path / "rows.jsonl", content)])


def test_rows_lines_and_numbers(tmp_path):
    found = source(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": 2}\n[1]\n  \n{"a": 3}')
    assert rows_of(found) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [line for batch in found.batches() for line in batch.lines] == [1, 3, 6]
    assert numbers_of(found) == [0, 1, 3]
    assert found.count() == 4
    (reject,) = rejects_of(found)
    assert reject.where == f"{tmp_path}/rows.jsonl:4"
    assert "not an object but a list" in reject.reason
    assert reject.record == "[1]"
    assert found.position() == found.size()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not JSON: unexpected end of data at column 8"),
        (b'{"a": NaN}', "NaN at column 7; write null"),
        (b'{"a": -Infinity}', "-Infinity at column 7; write null"),
        (b'{"a": 1e999}', "infinity"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"null", "not an object but null"),
        (b'"text"', "not an object but a text"),
        (b'{"a": [{"b": 18446744073709551616}]}', "integer beyond 64 bits: 18446744073709551616"),
        (b'{"a": -9223372036854775809}', "integer beyond 64 bits: -9223372036854775809"),
        (b'{"a": ' + b"9" * 200 + b"}", "(200 digits)"),
        (b'{"a": 0.' + b"1" * 30 + b', "b": ' + b"1" * 30 + b"}", "beyond 64 bits"),
        (b'{"a": ' * 1020 + b"0" + b"}" * 1020 + b" " + b"1" * 21, "not JSON"),
        (b'{"a":' + b"[" * 1010 + b"1" * 21 + b"]" * 1010 + b"}", "beyond 64 bits"),
    ],
)
def test_rejects(tmp_path, line, reason):
    found = source(tmp_path, b'{"ok": 1}\n' + line + b'\n{"ok": 2}\n')
    assert rows_of(found) == [{"ok": 1}, {"ok": 2}]
    (reject,) = rejects_of(found)
    assert reason in reject.reason
    assert reject.where.endswith("rows.jsonl:2")
    assert numbers_of(found) == [0, 2]
    assert found.count() == 3


def test_long_numbers_that_are_fine(tmp_path):
    line = (
        b'{"a": 18446744073709551615, "b": -9223372036854775808, "c": "123456789012345678901234567890",'
        b' "d": 0.00012345678901234567, "e": 1.' + b"3" * 60 + b', "f": 1e22}'
    )
    assert rows_of(source(tmp_path, line)) == [json.loads(line)]


@hypothesis_given(
    st.lists(
        st.one_of(
            st.integers(-(2**70), 2**70),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text("0123456789.-", max_size=50),
        )
    )
)
def test_long_integers_are_found_exactly(values):
    line = json.dumps({"v": values}).encode()
    fits = all(not isinstance(v, int) or -(2**63) <= v < 2**64 for v in values)
    item = InputFile("x", "x", 1)
    batch = parse_lines(item, [line], 1, exact=not may_hold_long_integers(line + b"\n"))
    assert bool(batch.rows) == fits
    if fits:
        assert batch.rows == [{"v": values}]


def test_equal_names_the_last_wins(tmp_path):
    assert rows_of(source(tmp_path, b'{"a": 1, "a": 2}')) == [{"a": 2}]


def test_a_rejects_text_is_cut(tmp_path):
    (reject,) = rejects_of(source(tmp_path, b'["' + b"x" * 50_000 + b"\xff\n"))
    assert len(reject.record) == 10_001


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"])
def test_many_rows_make_bounded_batches(tmp_path, end):
    rows = [{"i": i, "text": "x" * (i % 300)} for i in range(20_000)]
    found = source(tmp_path, end.join(json.dumps(row).encode() for row in rows))
    assert rows_of(found) == rows
    assert numbers_of(found) == list(range(20_000))
    assert found.count() == 20_000
    assert max(batch.records for batch in found.batches()) <= 1000
    lines = [line for batch in found.batches() for line in batch.lines]
    apart = end.count(b"\n")
    assert lines == list(range(1, 20_000 * apart + 1, apart))


def test_a_huge_row_comes_alone(tmp_path):
    rows = [{"t": "a" * size} for size in (10, 3_000_000, 10, 600_000, 10)]
    found = source(tmp_path, b"\n".join(json.dumps(row).encode() for row in rows))
    assert rows_of(found) == rows
    assert all(batch.records == 1 for batch in found.batches() if len(str(batch.rows)) > 2_000_000)


def test_files_one_after_the_other(tmp_path):
    inputs = [given(tmp_path / f"{i}.jsonl", f'{{"i": {i}}}\n'.encode()) for i in range(3)]
    found = JsonlSource(LocalFiles(), inputs)
    assert [(b.file.name, b.rows, list(b.lines)) for b in found.batches()] == [
        (f"{i}.jsonl", [{"i": i}], [1]) for i in range(3)
    ]
    assert found.position() == found.size() == 27
    assert rows_of(found) == rows_of(found)


def test_empty_files(tmp_path):
    for content in (b"", b"\n\n", b"\xef\xbb\xbf"):
        found = source(tmp_path, content)
        assert rows_of(found) == []
        assert found.count() == 0


def test_compressed_rows_and_their_position(tmp_path):
    packed = gzip.compress(b'{"a": 1}\n' * 5000)
    found = JsonlSource(LocalFiles(), [given(tmp_path / "rows", packed)])
    assert len(rows_of(found)) == 5000 == found.count()
    assert found.position() == len(packed)


def test_standard_input_is_read_once():
    found = JsonlSource(LocalFiles(piped(b'{"a": 1}\n' * 100_000)), [STDIN])
    assert not found.rewindable
    assert found.count() is None
    assert found.size() is None
    assert len(rows_of(found)) == 100_000
    with pytest.raises(UsageError, match="only once"):
        found.batches()


def test_wrong_inputs(tmp_path):
    with pytest.raises(DataError, match="UTF-16") as caught:
        rows_of(source(tmp_path, '{"a": 1}'.encode("utf-16")))
    assert "iconv" in caught.value.hint
    with pytest.raises(NotFoundError) as missing:
        rows_of(JsonlSource(LocalFiles(), [InputFile("x", str(tmp_path / "x"), 1)]))
    assert missing.value.url == str(tmp_path / "x")
    with pytest.raises(UsageError):
        JsonlSource(LocalFiles(), [])


# --- rows that the source packs -------------------------------------------------------------------

FIELDS = ("a", "b", "c d")
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) - 1, 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
_LINES = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), _VALUES).map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.sampled_from(
        [b"", b"  ", b"{} {}", b"{}{}", b'{"a":', b"1}", b'{"a": {}', b"}", b'{"new": 1}', b"[{}]", b'{"a": "\xff"}']
    ),
)


def found_in(batches):
    """All that batches say: of each record its place and msgpack, and the rejects."""
    encode = packer()
    packed, rejects = [], []
    for batch in batches:
        if isinstance(batch, PackedBatch):
            rows = [dict(zip(FIELDS, values, strict=True)) for values in zip(*batch.columns, strict=True)]
            assert batch.payloads == [encode(row) for row in rows]
            packed += [(batch.first + index, payload) for index, payload in enumerate(batch.payloads)]
            continue
        rejects += batch.rejects
        for line, row in zip(batch.lines, batch.rows, strict=True):
            if row.keys() <= set(FIELDS):
                packed.append((line, encode({name: row.get(name) for name in FIELDS})))
    return packed, rejects


@hypothesis_given(st.lists(_LINES, max_size=6), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_packing_changes_nothing(tmp_path_factory, lines, end, last):
    path = tmp_path_factory.mktemp("rows")
    found = source(path, end.join(lines) + end * last)
    plain = found_in(found.batches())
    assert found_in(found.packing(found.batches(), FIELDS)) == plain


@hypothesis_given(st.lists(_LINES | st.sampled_from([b"{}{}", b'{"a": 1}']), max_size=12), st.integers(1, 4))
def test_packing_pieces_changes_nothing(tmp_path_factory, lines, records):
    found = source(tmp_path_factory.mktemp("rows"), b"\n".join(lines))
    cut = [piece.open(LocalFiles()) for piece in found.pieces(lambda shard: records, 1)]
    batches = itertools.chain.from_iterable(piece.packing(piece.batches(), FIELDS) for piece in cut)
    assert found_in(batches) == found_in(found.batches())


def test_good_lines_are_packed_and_others_are_not(tmp_path):
    found = source(tmp_path, b'{"a": 1, "c d": "x"}\n{"b": 2.5, "a": null}\n')
    (batch,) = found.packing(found.batches(), FIELDS)
    assert batch.columns == [[1, None], [None, 2.5], ["x", None]]
    assert batch.payloads == [
        msgpack.packb({"a": 1, "b": None, "c d": "x"}),
        msgpack.packb({"a": None, "b": 2.5, "c d": None}),
    ]
    (batch,) = found.batches()
    assert len(batch.rows) == 2
    (batch,) = found.packing(found.batches(), ('a"b',))
    assert len(batch.rows) == 2


@pytest.mark.parametrize(
    ("block", "lines", "good"),
    [
        (b'{"a": 1}\n{}\n', 2, True),
        (b"{}\r\n{}", 2, True),
        (b"{}", 1, True),
        (b"{}\n\n{}\n", 3, False),
        (b"{}\n{}\r\n", 2, False),
        (b'{"a":\n1}\n{}{}\n', 3, False),
        (b"{}{}\n{}\n", 2, True),
        (b"[]\n", 1, False),
        (b"", 0, False),
    ],
)
def test_lines_that_look_like_one_object_each(block, lines, good):
    assert count_lines(block) == lines
    assert JsonlSource(LocalFiles(), [STDIN])._are_objects(block, lines) is good
