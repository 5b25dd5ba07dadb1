"""The fast tar writer gives exactly the bytes of webdataset's."""

from __future__ import annotations

import io
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from atdata_cli.errors import DataError
from atdata_cli.samples.tar import archive_bytes
from atdata_cli.shards.writer import TarCounter, TarWriter, member_bytes


class Memory:
    """Collects what a writer sends, through small buffers so that every boundary is crossed."""

    def __init__(self, buffer_bytes: int = 1000) -> None:
        self.data = bytearray()
        self._size = buffer_bytes

    def take(self) -> bytearray:
        return bytearray(self._size)

    def send(self, buffer: bytearray, length: int) -> None:
        self.data += buffer[:length]


class Spool:
    """A blob that pretends to have *size* bytes."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self._data = data
        self.size = len(data) if size is None else size
        self.where = "some/file"

    def open(self) -> io.BytesIO:
        return io.BytesIO(self._data)


def stock(samples: list[dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    with webdataset.TarWriter(stream, encoder=False, mtime=0) as writer:
        for sample in samples:
            writer.write(sample)
    return stream.getvalue()


def ours(samples: list[dict[str, object]], buffer_bytes: int = 1000) -> bytes:
    stream = Memory(buffer_bytes)
    writer = TarWriter(stream)
    for sample in samples:
        writer.write(sample)
    writer.close()
    return bytes(stream.data)


# Names around the limits of a header: 100 characters, non-ASCII, deep folders, spaces.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
keys = st.one_of(
    text,
    st.integers(80, 120).map(lambda n: "k" * n),
    st.integers(1, 9).map(lambda n: "folder/" * n + "é" * n),
    st.integers(150, 300).map(lambda n: "a/" * (n // 2) + "b"),
)
fields = st.text("abcxyz.é", min_size=1, max_size=20).filter(lambda name: not name.startswith("_"))
payloads = st.one_of(
    st.binary(max_size=50), st.sampled_from([0, 1, 511, 512, 513, 10_239, 10_240, 40_000]).map(lambda n: b"x" * n)
)
samples = st.lists(
    st.tuples(keys, st.dictionaries(fields, payloads, min_size=1, max_size=3)).map(lambda s: {"__key__": s[0], **s[1]}),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([1, 100, 512, 1000, 1 << 20]))
def test_bytes_equal_those_of_the_stock_writer(samples, buffer_bytes):
    assert ours(samples, buffer_bytes) == stock(samples)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(keys, payloads), min_size=1, max_size=6))
def test_packed_samples_equal_those_of_the_stock_writer(members):
    stream = Memory()
    writer = TarWriter(stream)
    writer.add_packed([key for key, _ in members], [payload for _, payload in members])
    writer.close()
    assert bytes(stream.data) == stock([{"__key__": key, "msgpack": payload} for key, payload in members])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(keys, fields, payloads), min_size=1, max_size=6))
def test_sizes_are_known_before_writing(members):
    stream = Memory()
    writer, counter = TarWriter(stream), TarCounter()
    expected = 0
    for key, field, payload in members:
        name = f"{key}.{field}"
        expected += member_bytes(name, len(payload))
        writer.add(name, payload)
        counter.add(name, Spool(payload))
    assert writer.members == counter.members == expected
    assert writer.payload == counter.payload == sum(len(payload) for _, _, payload in members)
    writer.close()
    assert len(stream.data) == archive_bytes(expected)


def test_a_blob_is_written_as_its_bytes():
    data = bytes(range(256)) * 400
    stream = Memory()
    writer = TarWriter(stream)
    writer.add("a.bin", Spool(data))
    writer.close()
    assert bytes(stream.data) == stock([{"__key__": "a", "bin": data}])


@pytest.mark.parametrize("size", [99, 101])
def test_a_blob_of_another_size_than_planned_is_an_error(size):
    writer = TarWriter(Memory())
    with pytest.raises(DataError, match="changed while it was read") as raised:
        writer.add("a.bin", Spool(b"x" * 100, size))
    assert raised.value.url == "some/file"


def test_sizes_beyond_eleven_octal_digits_take_an_extended_header():
    size = 1 << 33
    assert member_bytes("a.bin", size - 1) == 512 + size
    assert member_bytes("a.bin", size) == 3 * 512 + size
    info = tarfile.TarInfo("a.bin")
    info.size = size
    assert len(info.tobuf(tarfile.PAX_FORMAT)) == 3 * 512
