import datetime
import decimal
import gzip
import io
import subprocess
import sys
import uuid
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atdata_cli.errors import DataError, UsageError
from atdata_cli.samples.codec import packer
from atdata_cli.sources.arrow import ArrowSource, ParquetSource
from atdata_cli.sources.base import InputFile, RowSource
from tests.unit.rowfiles import STDIN, LocalFiles, as_input, given, numbers_of, piped, rejects_of, rows_of


def parquet(path, table, name="t.parquet", **options):
    pq.write_table(table, path / name, **options)
    return as_input(path / name)


def ipc(table, *, file=False, rows=None):
    sink = io.BytesIO()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def column(path, array):
    """The values of a column that is read from a file, and of a slice, in which offsets count."""
    padded = pa.concat_arrays([array, array])
    table = pa.table({"c": padded.slice(len(array) - 1)})
    item = given(path / "t.arrow", ipc(table))
    rows = [row["c"] for row in rows_of(ArrowSource(LocalFiles(), [item]))]
    from atdata_cli.sources.arrowvalues import column_values

    same(column_values(padded.slice(len(array)), {}), rows[1:])
    return rows[1:]


def same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
        np.testing.assert_equal(one, other)
        assert type(one) is type(other)


UTC = datetime.UTC
KINDS = [
    (pa.array([1, None, -(2**63)]), [1, None, -(2**63)]),
    (pa.array([1, 2**64 - 1], pa.uint64()), [1, 2**64 - 1]),
    (pa.array([None, 2**64 - 1], pa.uint64()), [None, 2**64 - 1]),
    (pa.array([1, 2], pa.int8()), [1, 2]),
    (pa.array([1.5, None]), [1.5, None]),
    (pa.array([1.5, 2], pa.float32()), [1.5, 2.0]),
    (pa.array(np.array([1.5, 2], np.float16)), [1.5, 2.0]),
    (pa.array([True, None, False]), [True, None, False]),
    (pa.array([True, False]), [True, False]),
    (pa.array(["a", None, "é"]), ["a", None, "é"]),
    (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
    (pa.array(["a", None], pa.string_view()), ["a", None]),
    (pa.array([b"\xff", None]), [b"\xff", None]),
    (pa.array([b"ab", b"cd"], pa.binary(2)), [b"ab", b"cd"]),
    (pa.array([b"ab", b"c"], pa.large_binary()), [b"ab", b"c"]),
    (pa.nulls(2), [None, None]),
    (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
    (pa.array([1, 1]).dictionary_encode(), [1, 1]),
    (pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)), ["1.50", None]),
    (pa.array([decimal.Decimal("1E+3")], pa.decimal128(9, -3)), ["1000"]),
    (pa.array([{"a": 1, "b": [1.5]}, None, {"a": None, "b": None}]), None),
    (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())), [{"k": 1}, None, {}]),
    (pa.array([[(1, "v")], None], pa.map_(pa.int32(), pa.string())), [[[1, "v"]], None]),
    (pa.array([["a", None], None, []]), [["a", None], None, []]),
    (pa.array([[[1], [2, 3]], None, [None, []]]), [[[1], [2, 3]], None, [None, []]]),
    (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), [["a", "b"], None]),
    (pa.array([datetime.date(2024, 1, 2), None, datetime.date(1, 1, 1)]), ["2024-01-02", None, "0001-01-01"]),
    (pa.array([datetime.date(1969, 1, 2)], pa.date64()), ["1969-01-02"]),
    (pa.array([0, -1, 1_000_000, None], pa.timestamp("us")), None),
    (pa.array([0, 1500], pa.timestamp("ms")), ["1970-01-01T00:00:00", "1970-01-01T00:00:01.500000"]),
    (
        pa.array([1, 1000], pa.timestamp("ns")),
        ["1970-01-01T00:00:00.000000001", "1970-01-01T00:00:00.000001"],
    ),
    (pa.array([1], pa.timestamp("s", "UTC")), ["1970-01-01T00:00:01+00:00"]),
    (pa.array([1500], pa.timestamp("ms", "+05:30")), ["1970-01-01T05:30:01.500000+05:30"]),
    (pa.array([1720000000], pa.timestamp("s", "Europe/Berlin")), ["2024-07-03T11:46:40+02:00"]),
    (pa.array([datetime.time(1, 2, 3), None], pa.time32("s")), ["01:02:03", None]),
    (pa.array([3723_000_004], pa.time64("us")), ["01:02:03.000004"]),
    (pa.array([1500, -1500, None], pa.duration("ms")), ["PT1.500000S", "-PT1.500000S", None]),
]
STRUCTS = [{"a": 1, "b": [1.5]}, None, {"a": None, "b": None}]
MOMENTS = ["1970-01-01T00:00:00", "1969-12-31T23:59:59.999999", "1970-01-01T00:00:01", None]


@pytest.mark.parametrize(("array", "expected"), KINDS, ids=[f"{i}-{a.type}"[:40] for i, (a, _) in enumerate(KINDS)])
def test_values(tmp_path, array, expected):
    if expected is None:
        expected = STRUCTS if pa.types.is_struct(array.type) else MOMENTS
    same(column(tmp_path, array), expected)


F4, I2 = np.float32, np.int16
ARRAYS = [
    (pa.array([[1, 2], None, []], pa.list_(pa.float32())), [np.array([1, 2], F4), None, np.array([], F4)]),
    (pa.array([[1, 2], [3]], pa.large_list(pa.int16())), [np.array([1, 2], I2), np.array([3], I2)]),
    (
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
        [np.array([1, 2], I2), None, np.array([3, 4], I2)],
    ),
    (pa.array([[True, False]]), [np.array([True, False])]),
    (
        pa.array([[1.0, None], [None]], pa.list_(pa.float32())),
        [np.array([1, np.nan], F4), np.array([np.nan], F4)],
    ),
    (
        pa.array([[np.float16(1)], [np.float16(2)]], pa.list_(pa.float16())),
        [np.array([1], np.float16), np.array([2], np.float16)],
    ),
    (pa.array([[2**64 - 1]], pa.list_(pa.uint64())), [np.array([2**64 - 1], np.uint64)]),
    (
        pa.array([[[1, 2], [3, 4], [5, 6]], None], pa.list_(pa.list_(pa.float32(), 2), 3)),
        [np.array([[1, 2], [3, 4], [5, 6]], F4), None],
    ),
    (
        pa.array([[[1, 2]], [], [[3, 4], [5, 6]]], pa.list_(pa.list_(pa.float32(), 2))),
        [np.array([[1, 2]], F4), np.zeros((0, 2), F4), np.array([[3, 4], [5, 6]], F4)],
    ),
    (pa.array([[[], []]], pa.list_(pa.list_(pa.float32(), 0), 2)), [np.zeros((2, 0), F4)]),
]


@pytest.mark.parametrize(("array", "expected"), ARRAYS, ids=[str(array.type)[:40] for array, _ in ARRAYS])
def test_lists_of_numbers_become_arrays(tmp_path, array, expected):
    same(column(tmp_path, array), expected)


def test_views_and_run_ends(tmp_path):
    from atdata_cli.sources.arrowvalues import column_values

    lists = pa.ListViewArray.from_arrays(pa.array([2, 0]), pa.array([2, 2]), pa.array([1.0, 2, 3, 4], pa.float32()))
    same(column_values(lists, {}), [np.array([3, 4], F4), np.array([1, 2], F4)])
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    assert column_values(runs, {}) == ["a", "a", "b"]


def test_extension_types(tmp_path):
    kind = pa.fixed_shape_tensor(pa.int32(), (2, 3))
    tensors = pa.ExtensionArray.from_storage(kind, pa.array([list(range(6)), None], pa.list_(pa.int32(), 6)))
    same(column(tmp_path, tensors), [np.arange(6, dtype=np.int32).reshape(2, 3), None])
    kind = pa.fixed_shape_tensor(pa.int32(), (2, 3, 4), permutation=[2, 0, 1])
    turned = pa.ExtensionArray.from_storage(kind, pa.array([list(range(24))], pa.list_(pa.int32(), 24)))
    same(column(tmp_path, turned), [np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1)])
    one = uuid.uuid5(uuid.NAMESPACE_DNS, "x")
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one.bytes, None], pa.binary(16)))
    assert column(tmp_path, uuids) == [str(one), None]
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8()))
    assert column(tmp_path, flags) == [True, False, None]


BAD = [
    (pa.array([[1], [1, None], [2]]), "null inside a list of int64"),
    (pa.array([[True], [None], [False]]), "null inside a list of bool"),
    (pa.array([[[1.0, 2.0]], [None], [[3.0, 4.0]]], pa.list_(pa.list_(pa.float32(), 2))), "null inside"),
    (pa.array([0, 2**62, 0], pa.timestamp("ms")), "outside the years"),
]


@pytest.mark.parametrize(("array", "reason"), BAD, ids=[str(array.type) for array, _ in BAD])
def test_rejects(tmp_path, array, reason):
    table = pa.table({"ok": [1, 2, 3], "c": array})
    sources: list[RowSource] = [ArrowSource(LocalFiles(), [given(tmp_path / "t.arrow", ipc(table))])]
    with suppress(pa.ArrowNotImplementedError):  # pyarrow before 24 writes no nulls in lists of lists of one length
        sources.append(ParquetSource(LocalFiles(), [parquet(tmp_path, table)]))
    for found in sources:
        assert [row["ok"] for row in rows_of(found)] == [1, 3]
        (reject,) = rejects_of(found)
        assert reject.where.endswith(":2")
        assert "column 'c'" in reject.reason
        assert reason in reject.reason
        assert numbers_of(found) == [0, 2]


def test_parquet_text_that_is_not_utf8(tmp_path):
    raw = pa.array([b"ok", b"\xff", None]).view(pa.string())
    found = ParquetSource(LocalFiles(), [parquet(tmp_path, pa.table({"t": raw}))])
    assert rows_of(found) == [{"t": "ok"}, {"t": None}]
    assert "not UTF-8" in rejects_of(found)[0].reason


def test_nested_problems_reach_their_row():
    from atdata_cli.sources.arrowvalues import column_values

    times = pa.array([[0], [], [0, 2**62], [0]], pa.list_(pa.timestamp("s")))
    problems = {}
    column_values(times, problems)
    assert list(problems) == [2]
    maps = pa.array([[], [("a", 2**62)], [("b", 0)]], pa.map_(pa.string(), pa.timestamp("s")))
    problems = {}
    column_values(maps, problems)
    assert list(problems) == [1]


TABLE = pa.table({"i": range(5000), "t": [f"row {i}" for i in range(5000)], "v": [[1.0, 2.0]] * 5000})


def test_parquet_file(tmp_path):
    found = ParquetSource(LocalFiles(), [parquet(tmp_path, TABLE, row_group_size=1700)])
    assert found.fields == ("i", "t", "v")
    assert found.count() == 5000
    rows = rows_of(found)
    assert [row["i"] for row in rows] == list(range(5000))
    assert [line for batch in found.batches() for line in batch.lines] == list(range(1, 5001))
    assert max(batch.records for batch in found.batches()) <= 1000
    assert found.position() == found.size()
    assert rows[7]["v"].tolist() == [1.0, 2.0]


def test_large_values_come_in_small_batches(tmp_path):
    table = pa.table({"b": [bytes([i]) * 300_000 for i in range(20)]})
    for found in (
        ParquetSource(LocalFiles(), [parquet(tmp_path, table)]),
        ArrowSource(LocalFiles(), [given(tmp_path / "t.arrow", ipc(table))]),
    ):
        assert max(batch.records for batch in found.batches()) <= 2
        assert [row["b"] for row in rows_of(found)] == table["b"].to_pylist()


def test_arrow_files_and_streams(tmp_path):
    for content in (ipc(TABLE, rows=1300), ipc(TABLE, file=True, rows=1300), gzip.compress(ipc(TABLE))):
        found = ArrowSource(LocalFiles(), [given(tmp_path / "t.arrow", content)])
        assert found.fields == ("i", "t", "v")
        assert found.count() == 5000
        assert [row["i"] for row in rows_of(found)] == list(range(5000))
        assert [line for batch in found.batches() for line in batch.lines] == list(range(1, 5001))
        assert max(batch.records for batch in found.batches()) <= 1000
        assert found.position() == found.size()


def test_standard_input():
    found = ArrowSource(LocalFiles(piped(ipc(TABLE))), [STDIN])
    assert found.count() is None
    assert found.fields is None
    assert len(rows_of(found)) == 5000
    assert found.fields == ("i", "t", "v")
    with pytest.raises(UsageError):
        found.batches()
    with pytest.raises(UsageError, match="Arrow file"):
        rows_of(ArrowSource(LocalFiles(piped(ipc(TABLE, file=True))), [STDIN]))
    with pytest.raises(UsageError, match="end of the file") as caught:
        ParquetSource(LocalFiles(), [STDIN])
    assert "file" in caught.value.hint


def test_columns(tmp_path):
    table = pa.table({"a.b": [1], "a": [{"b": 5}], "z": [2]})
    for make, item in (
        (ParquetSource, parquet(tmp_path, table)),
        (ArrowSource, given(tmp_path / "t", ipc(table))),
    ):
        found = make(LocalFiles(), [item], columns=["z", "a"])
        assert found.fields == ("z", "a")
        assert [list(row.items()) for row in rows_of(found)] == [[("z", 2), ("a", {"b": 5})]]
        assert rows_of(make(LocalFiles(), [item], columns=["a.b"])) == [{"a.b": 1}]
        with pytest.raises(UsageError, match="no column 'q'") as caught:
            rows_of(make(LocalFiles(), [item], columns=["q"]))
        assert "a.b, a, z" in caught.value.hint


def test_several_files(tmp_path):
    one = parquet(tmp_path, pa.table({"a": [1], "b": ["x"]}), "1.parquet")
    two = parquet(tmp_path, pa.table({"b": ["y"], "a": [2.5]}), "2.parquet")
    other = parquet(tmp_path, pa.table({"a": [1], "c": ["x"]}), "3.parquet")
    found = ParquetSource(LocalFiles(), [one, two])
    assert rows_of(found) == [{"a": 1, "b": "x"}, {"a": 2.5, "b": "y"}]
    assert found.count() == 2
    assert found.position() == found.size()
    assert [(batch.file.name, list(batch.lines)) for batch in found.batches()] == [
        ("1.parquet", [1]),
        ("2.parquet", [1]),
    ]
    with pytest.raises(DataError, match="it lacks b and it adds c") as caught:
        rows_of(ParquetSource(LocalFiles(), [one, other]))
    assert caught.value.url == other.url
    assert rows_of(ParquetSource(LocalFiles(), [one, other], columns=["a"])) == [{"a": 1}, {"a": 1}]


def test_equal_column_names(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    for make, item in (
        (ParquetSource, parquet(tmp_path, table)),
        (ArrowSource, given(tmp_path / "t", ipc(table))),
    ):
        with pytest.raises(DataError, match="several columns are named a"):
            rows_of(make(LocalFiles(), [item]))


def test_types_that_cannot_be_read(tmp_path):
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    with pytest.raises(DataError, match="column 'u': columns of type sparse_union") as caught:
        rows_of(ArrowSource(LocalFiles(), [given(tmp_path / "t", ipc(pa.table({"u": union})))]))
    assert caught.value.url
    assert "--fields" in caught.value.hint


def test_unknown_time_zones_are_not_guessed():
    from atdata_cli.sources.arrowvalues import column_values

    with pytest.raises(DataError, match="Nowhere/Land"):
        column_values(pa.array([1], pa.timestamp("s", "Nowhere/Land")), {})


@pytest.mark.parametrize("end", [0, 3, 100, -1000, -20, -1])
def test_truncated(tmp_path, end):
    whole = parquet(tmp_path, TABLE)
    content = (tmp_path / "t.parquet").read_bytes()[:end]
    with pytest.raises(DataError, match="cannot be read as Parquet") as caught:
        rows_of(ParquetSource(LocalFiles(), [given(tmp_path / "x.parquet", content)]))
    assert caught.value.url != whole.url
    assert caught.value.url.endswith("x.parquet")
    if end != -1:  # the last byte of a file's end mark is not needed
        content = ipc(TABLE, file=True)[:end]
        with pytest.raises(DataError):
            rows_of(ArrowSource(LocalFiles(), [given(tmp_path / "x.arrow", content)]))
    if end != -1 and end != -20:
        with pytest.raises(DataError):
            rows_of(ArrowSource(LocalFiles(), [given(tmp_path / "x.arrow", ipc(TABLE)[:end])]))


def test_corrupt_pages(tmp_path):
    parquet(tmp_path, TABLE, compression="snappy", use_dictionary=False)
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[20_000:20_400] = bytes([0xA5]) * 400
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        rows_of(ParquetSource(LocalFiles(), [given(tmp_path / "x.parquet", bytes(content))]))


def test_hostile_offsets(tmp_path):
    offsets = pa.py_buffer(np.array([0, 10**6, 2], np.int32))
    array = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema([("s", pa.string())])) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([array], names=["s"]))
    with pytest.raises(DataError, match="cannot be read as Arrow"):
        rows_of(ArrowSource(LocalFiles(), [given(tmp_path / "x.arrow", sink.getvalue())]))


def test_without_pyarrow():
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from atdata_cli.errors import MissingExtraError\n"
        "from atdata_cli.sources.arrow import ParquetSource\n"
        "from atdata_cli.sources.base import InputFile\n"
        "try: ParquetSource(None, [InputFile('a', 'a', 1)])\n"
        "except MissingExtraError as error: print(error.message, '|', error.hint)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == (
        "reading Parquet needs the optional 'parquet' dependencies | pip install 'atdata-cli[parquet]'\n"
    )


def test_missing_file(tmp_path):
    from atdata_cli.errors import NotFoundError

    with pytest.raises(NotFoundError):
        rows_of(ParquetSource(LocalFiles(), [InputFile("x", str(tmp_path / "x"), 1)]))


def test_packing_changes_nothing(tmp_path):
    table = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int64()),
            "text": ["a", "é", None],
            "vector": pa.array([[1.0, 2.0], None, []], pa.list_(pa.float32())),
            "when": pa.array([0, 1, None], pa.timestamp("us", "UTC")),
            "map": [{"x": 1}, None, {"x": 2}],
        }
    )
    found = ParquetSource(LocalFiles(), [parquet(tmp_path, table)])
    (plain,) = found.batches()
    (packed,) = found.packing(found.batches(), found.fields)
    encode = packer()
    assert packed.payloads == [encode(row) for row in plain.rows]
    assert packed.first == 1
    assert len(packed.columns) == len(found.fields)
