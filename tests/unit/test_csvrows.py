import csv
import gzip
import io
from decimal import Decimal

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from atdata_cli.errors import DataError, UsageError
from atdata_cli.sources.columns import infer
from atdata_cli.sources.csvrows import CsvSource, TsvSource
from tests.unit.rowfiles import STDIN, LocalFiles, given, numbers_of, piped, rejects_of, rows_of


def source(path, content, **options):
    content = content.encode() if isinstance(content, str) else content
    return CsvSource(LocalFiles(), [given(path / "rows.csv", content)], **options)


def test_types(tmp_path):
    found = source(
        tmp_path,
        "id,price,flag,zip,date,none,mixed,big\n"
        "1,1.50,true,007,2024-01-02,,1,18446744073709551615\n"
        "-2,,false,123,,,x,-9223372036854775808\n",
    )
    assert found.fields == ("id", "price", "flag", "zip", "date", "none", "mixed", "big")
    assert rows_of(found) == [
        {
            "id": 1,
            "price": 1.5,
            "flag": True,
            "zip": "007",
            "date": "2024-01-02",
            "none": None,
            "mixed": "1",
            "big": 18446744073709551615,
        },
        {
            "id": -2,
            "price": None,
            "flag": False,
            "zip": "123",
            "date": None,
            "none": None,
            "mixed": "x",
            "big": -9223372036854775808,
        },
    ]
    assert [type(value) for value in rows_of(found)[0].values()] == [
        int,
        float,
        bool,
        str,
        str,
        type(None),
        str,
        int,
    ]
    assert found.position() == found.size()


ODD = [
    "1_000",
    " 1",
    "1 ",
    "٣",
    "+1",
    "007",
    "-07",
    "nan",
    "inf",
    "-Infinity",
    "1e400",
    "1e-400",
    "0x10",
    "1.",
]
ODD += [".5", "0.1234567890123456789", "9" * 25, "1" + "0" * 20, "9007199254740993.5", "True ", "TRUE", "1,5"]
ODD += ["1\n", "1\n2", "--1", "1e", "", "9" * 5000, "١.٥"]


@pytest.mark.parametrize("cell", ODD)
def test_what_would_change_stays_text(cell):
    assert infer([cell]).name == "text"
    assert infer(["1.5", cell, "2.5"]).name == "text"


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        (["1", "2.5", "1e3", "-0.10", "3.0000000000000000"], [1.0, 2.5, 1000.0, -0.1, 3.0]),
        (["True", "False"], [True, False]),
        (["9007199254740992", "0.5"], [2.0**53, 0.5]),
        (["1e5", "1E-05"], [1e5, 1e-5]),
    ],
)
def test_what_survives_is_converted(cells, value):
    converted = infer(cells).column(cells)
    assert converted == value
    assert list(map(type, converted)) == list(map(type, value))


def test_words_of_two_kinds_are_text():
    assert infer(["true", "False"]).name == "text"
    assert infer([]).name == "text"


@hypothesis_given(
    st.lists(
        st.one_of(
            st.integers(-(2**66), 2**66).map(str),
            st.floats().map(repr),
            st.decimals().map(str),
            st.text("0123456789-+.eE_ ", max_size=6),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_inference_never_loses_a_value(cells):
    kind = infer(cells)
    converted = kind.column(cells)
    if kind.name != "text":
        assert all(Decimal(cell) == Decimal(repr(value)) for cell, value in zip(cells, converted, strict=True))
    assert converted == [kind.cell(cell) for cell in cells]


def test_later_violations(tmp_path):
    rows = "".join(f"{i},{i / 4}\n" for i in range(10_000))
    found = source(tmp_path, "n,x\n" + rows + "1,2\nabc,0.1\n3,1_0\n,\n")
    assert found.count() == 10_004
    assert rows_of(found)[-2:] == [{"n": 1, "x": 2.0}, {"n": None, "x": None}]
    first, second = rejects_of(found)
    assert first.where == f"{tmp_path}/rows.csv:10003"
    assert first.record == "abc,0.1"
    for text in ("'n'", "'abc'", "integer", "--no-infer", "--schema"):
        assert text in first.reason
    assert "'x'" in second.reason
    assert numbers_of(found)[-2:] == [10_000, 10_003]


def test_only_the_first_records_decide(tmp_path):
    found = source(tmp_path, "n\n" + "1\n" * 10_000 + "x\n")
    assert len(rejects_of(found)) == 1
    found = source(tmp_path, "n\n" + "1\n" * 9_999 + "x\n")
    assert rejects_of(found) == []


def test_options(tmp_path):
    text = "a,b,c\n1,NA,true\n2,,false\n"
    assert rows_of(source(tmp_path, text, infer=False))[0] == {"a": "1", "b": "NA", "c": "true"}
    assert rows_of(source(tmp_path, text, null="NA"))[0] == {"a": 1, "b": None, "c": True}
    types = {"a": "number", "c": "string"}
    assert rows_of(source(tmp_path, text, types=types))[1] == {"a": 2.0, "b": None, "c": "false"}
    found = source(tmp_path, "a\n0.1234567890123456789\nx\n", types={"a": "number"}, infer=False)
    assert rows_of(found) == [{"a": 0.12345678901234568}]
    assert "as --schema says" in rejects_of(found)[0].reason
    assert rows_of(source(tmp_path, "a;b\n1;2\n", delimiter=";")) == [{"a": 1, "b": 2}]
    for wrong in ({"delimiter": "ab"}, {"types": {"a": "date"}}):
        with pytest.raises(UsageError):
            source(tmp_path, text, **wrong)
    # A schema may know more columns than one table has.
    assert rows_of(source(tmp_path, text, types={"z": "string"})) == rows_of(source(tmp_path, text))


def test_tsv(tmp_path):
    found = TsvSource(LocalFiles(), [given(tmp_path / "x.tsv", b'a\tb\n1,5\t"x\ty"\n')])
    assert rows_of(found) == [{"a": "1,5", "b": "x\ty"}]


def test_ragged_broken_and_odd_records(tmp_path):
    content = (
        b'a,b,c,d\n1,2,3\n1,2,3,4\n"multi\nline",2,3,4\n\n"x"y,2,3,4\n5,6,7,8,9\n1,\xff,3,4\n1,\x00,3,4\n'
        b'"two\r\nlines",2,3,4\nlast,2,3,4'
    )
    found = source(tmp_path, content)
    assert [row["a"] for row in rows_of(found)] == ["1", "multi\nline", "two\r\nlines", "last"]
    assert [line for batch in found.batches() for line in batch.lines] == [3, 4, 11, 13]
    assert numbers_of(found) == [1, 2, 7, 8]
    assert [(reject.where.rpartition(":")[2], reject.reason) for reject in rejects_of(found)] == [
        ("2", "has 3 cells, the header has 4"),
        ("7", "not CSV: ',' expected after '\"'"),
        ("8", "has 5 cells, the header has 4"),
        ("9", "is not UTF-8: byte 0xff"),
        ("10", "holds a NUL character"),
    ]
    assert [reject.record for reject in rejects_of(found)] == [
        "1,2,3",
        '"x"y,2,3,4',
        "5,6,7,8,9",
        "1,�,3,4",
        "1,\x00,3,4",
    ]
    assert found.count() == 9


def test_line_ends_inside_text_are_none(tmp_path):
    text = "a,b\nx\u2028y,1\nx\x0by\x0cz\x85,2\n"
    assert rows_of(source(tmp_path, text)) == [{"a": "x\u2028y", "b": 1}, {"a": "x\x0by\x0cz\x85", "b": 2}]


def test_bom_and_crlf(tmp_path):
    assert rows_of(source(tmp_path, b"\xef\xbb\xbfa,b\r\n1,x\r\n")) == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no header"),
        ("\n1,2\n", "no header"),
        ("a,,c\n", "column 2 has no name"),
        ("a,b,a,b\n", "several columns are named a, b"),
        (b"a,\xff\n", "not UTF-8"),
        ("a,b\n".encode("utf-16"), "UTF-16"),
        ('a,"b\n', "the header is no CSV"),
    ],
)
def test_bad_headers(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        rows_of(source(tmp_path, content))
    assert caught.value.url == f"{tmp_path}/rows.csv"


def test_a_quote_that_is_never_closed(tmp_path):
    with pytest.raises(DataError, match="never closed") as caught:
        rows_of(source(tmp_path, 'a,b\n1,2\n3,"4\n5,6\n'))
    assert caught.value.url == f"{tmp_path}/rows.csv:3"


def test_header_only(tmp_path):
    found = source(tmp_path, "a,b\n")
    assert rows_of(found) == []
    assert found.count() == 0


def test_large_cells(tmp_path):
    found = source(tmp_path, "a,b\n" + "x" * 3_000_000 + ",1\nshort,2\n")
    assert [len(row["a"]) for row in rows_of(found)] == [3_000_000, 5]


def test_several_files(tmp_path):
    def files(*texts):
        return CsvSource(LocalFiles(), [given(tmp_path / f"{i}.csv", t.encode()) for i, t in enumerate(texts)])

    found = files("a,b\n1,x\n", "a,b\n2.5,y\n")
    assert rows_of(found) == [{"a": 1.0, "b": "x"}, {"a": 2.5, "b": "y"}]
    assert found.count() == 2
    assert [list(batch.lines) for batch in found.batches()] == [[2], [2]]
    for other, message in (("b,a\n", "another order"), ("a,c\n", "it lacks b and it adds c")):
        with pytest.raises(DataError, match=message) as caught:
            rows_of(files("a,b\n1,x\n", other))
        assert caught.value.url == f"{tmp_path}/1.csv"
        assert "0.csv" in caught.value.message


def test_standard_input():
    content = b"a,b\n" + b"".join(b"%d,x\n" % i for i in range(30_000))
    found = CsvSource(LocalFiles(piped(gzip.compress(content))), [STDIN])
    assert found.count() is None
    assert found.fields == ("a", "b")
    assert [row["a"] for row in rows_of(found)] == list(range(30_000))
    assert found.position() == len(gzip.compress(content))
    with pytest.raises(UsageError):
        found.batches()


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@hypothesis_given(st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=1)))
def test_what_the_csv_module_writes_comes_back(tmp_path_factory, records):
    text = io.StringIO()
    names = [f"c{i}" for i in range(len(records[0]))]
    csv.writer(text).writerows([names, *records])
    path = tmp_path_factory.mktemp("csv")
    found = source(path, text.getvalue(), infer=False)
    assert rows_of(found) == [{n: c or None for n, c in zip(names, r, strict=True)} for r in records]
    assert found.count() == len(records)
    # Each line number is where the csv module began the record.
    reader = csv.reader(io.StringIO(text.getvalue(), newline=""))
    starts = []
    while True:
        start = reader.line_num + 1
        if next(reader, None) is None:
            break
        starts.append(start)
    assert [line for batch in found.batches() for line in batch.lines] == starts[1:]
