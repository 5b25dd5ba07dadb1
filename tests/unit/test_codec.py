"""Samples as bytes: arrays, plain values, and what is told of values that cannot be written."""

import datetime
import decimal
import uuid

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atdata_cli.samples.codec import (
    Unencodable,
    array_to_bytes,
    bytes_to_array,
    dump_json,
    explain,
    packer,
    plain_value,
    unpack_rows,
)

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
)


@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
def test_arrays_come_back_as_they_were(array):
    back = bytes_to_array(array_to_bytes(array))
    assert back is not None
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_the_array_format_is_that_of_atdata():
    array = np.array([[1, 2, 3]], dtype="<i2")
    assert array_to_bytes(array) == (
        b"\x03<i2" + b"\x02" + (1).to_bytes(8, "little") + (3).to_bytes(8, "little") + b"\x01\0\x02\0\x03\0"
    )
    assert array_to_bytes(np.asfortranarray([[1, 2], [3, 4]])) == array_to_bytes(np.array([[1, 2], [3, 4]]))


@pytest.mark.parametrize("array", [np.array([object()]), np.zeros(2, dtype=[("a", "i4")])])
def test_arrays_that_need_more_than_their_bytes_are_refused(array):
    with pytest.raises(Unencodable, match="dtype"):
        array_to_bytes(array)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_array_or_not(data):
    array = bytes_to_array(data)
    assert array is None or array_to_bytes(array) == data


def npy(header: bytes, rest: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + rest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff" * 300,
        b"\x93NUMPY",
        npy(b""),
        npy(b"(" * 5000 + b"\n"),
        npy(b"{'descr': '''\n"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"cos\nsystem\n."),
        npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }\n"),
        b"\x03<f4\x01" + (-1).to_bytes(8, "little", signed=True),
        b"\x03<f4\x02" + (1 << 62).to_bytes(8, "little") * 2,
        b"\x03<f4\xff" + bytes(8 * 255),
        b"\x03|S0\x01" + (5).to_bytes(8, "little"),
        b"\x03<q4\x00" + bytes(4),
    ],
)
def test_hostile_bytes_are_no_array(data):
    assert bytes_to_array(data) is None


def test_the_older_form_of_arrays_is_read():
    data = npy(b"{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }\n", b"\x01\0\x02\0")
    assert bytes_to_array(data).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 1, 2, tzinfo=datetime.UTC), "2024-02-29T01:02:00+00:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.datetime64("2024-02-29T01:02:03.000000004", "ns"), "2024-02-29T01:02:03.000000004"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
    ],
)
def test_values_that_have_an_obvious_form(value, plain):
    assert plain_value(value) == plain
    assert msgpack.unpackb(packer()(value)) == plain


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j])
def test_other_values_are_named_by_their_type(value):
    with pytest.raises(Unencodable, match=type(value).__name__):
        plain_value(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1 << 64, "64 bits"),
        ("\ud800", "surrogate"),
        (object(), "type object"),
    ],
)
def test_refusals_are_explained(value, words):
    with pytest.raises(Exception) as refused:  # noqa: PT011 - of what kind is the library's business
        packer()({"a": value})
    assert words in explain(refused.value)


def test_deep_values_are_explained_by_both_formats():
    deep: list = []
    for _ in range(3000):
        deep = [deep]
    for write in (packer(), dump_json):
        with pytest.raises(Exception) as refused:  # noqa: PT011
            write({"a": deep})
        assert explain(refused.value) == "nested too deeply"


def test_bytes_are_no_json():
    with pytest.raises(Exception) as refused:  # noqa: PT011
        dump_json({"a": b"x"})
    assert "bytes cannot be written as JSON" in str(refused.value.__cause__ or refused.value)


def test_rows_are_unpacked_with_their_arrays():
    pack = packer()
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    rows = unpack_rows([pack({"x": array, "n": 1, "raw": b"ab"}), pack({})])
    assert rows is not None
    assert rows[0]["x"].tolist() == array.tolist()
    assert (rows[0]["n"], rows[0]["raw"], rows[1]) == (1, b"ab", {})


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\x93", b"\x91" * 100_000, msgpack.packb(5), msgpack.packb({1: 2}), msgpack.packb({"a": 1}) + b"x"],
)
def test_what_is_no_packed_sample_is_told_apart(payload):
    assert unpack_rows([payload]) is None
