from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atdata_cli.errors import IntegrityError
from atdata_cli.samples.tar import Member, TarReader

LONG = "deep/" * 30 + "x" * 120
NAMES = [
    "a.txt",
    "b/c.json",
    "ä/ö.txt",
    "x" * 100,
    "p" * 90 + "/" + "q" * 90,
    LONG,
    "日本/" + "語" * 80 + ".txt",
]


class Unseekable(io.RawIOBase):
    """A pipe that gives as few bytes as it likes."""

    def __init__(self, data: bytes, step: int = 1000) -> None:
        self._inner = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, self._step) if size >= 0 else self._step)


def make(names: list[str], layout: int, sizes: Callable[[int], int] = lambda index: index * 700) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as tar:
        for index, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = sizes(index)
            tar.addfile(info, io.BytesIO(bytes([index % 251]) * info.size))
    return out.getvalue()


def read(data: bytes, *, seek: bool = True, block: int = 4096) -> list[tuple[Member, bytes]]:
    stream = io.BytesIO(data) if seek else Unseekable(data)
    reader = TarReader(stream, where="t.tar", seek=seek, block=block)
    return [(member, reader.read()) for member in reader]


def by_tarfile(data: bytes) -> list[tuple[str, int, int, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [
            (info.name.removeprefix("./"), info.size, info.offset_data, tar.extractfile(info).read())  # type: ignore[union-attr]
            for info in tar
            if info.isreg()
        ]


def files_of(members: list[tuple[Member, bytes]]) -> list[tuple[str, int, int, bytes]]:
    return [(member.name, member.size, member.offset, data) for member, data in members if member.kind == "file"]


@pytest.mark.parametrize("seek", [True, False])
@pytest.mark.parametrize("block", [512, 4096, 1 << 20])
@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_tarfile_writes(layout: int, seek: bool, block: int) -> None:
    names = NAMES[:5] if layout == tarfile.USTAR_FORMAT else NAMES
    data = make(names, layout)
    assert files_of(read(data, seek=seek, block=block)) == by_tarfile(data)


@pytest.mark.parametrize("layout", ["v7", "oldgnu", "gnu", "ustar", "pax", "posix"])
def test_reads_what_gnu_tar_writes(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "in"
    names = ["a.txt", "b/c.json", "b/über.txt"]
    if layout != "v7":
        names.append("n" * 80 + "/" + "m" * 80 + ".bin")
    if layout not in ("v7", "ustar"):
        names += [LONG + ".txt", "日本語" * 20 + ".json"]
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(index * 3000))
    (folder / "soft.txt").symlink_to("a.txt")
    os.link(folder / "a.txt", folder / "hard.txt")
    path = tmp_path / "out.tar"
    subprocess.run(["tar", "--sort=name", f"--format={layout}", "-C", folder, "-cf", path, "."], check=True)
    found = read(path.read_bytes())
    assert files_of(found) == by_tarfile(path.read_bytes())
    assert {member.kind for member, _ in found} == {"file", "folder", "symlink", "hardlink"}
    assert len(files_of(found)) == len(names)


def test_a_scan_gives_offsets_without_reading_payloads() -> None:
    data = make(["a.bin", "b.bin"], tarfile.USTAR_FORMAT, lambda index: 3_000_000)
    stream = io.BytesIO(data)
    reader = TarReader(stream, where="t.tar", seek=True)
    taken = 0
    original = stream.read

    def counted(size: int | None = -1) -> bytes:
        nonlocal taken
        chunk = original(size)
        taken += len(chunk)
        return chunk

    stream.read = counted  # type: ignore[method-assign]
    members = list(reader)
    assert [(member.name, data[member.offset]) for member in members] == [("a.bin", 0), ("b.bin", 1)]
    assert taken < 1_000_000
    assert reader.end == members[1].offset + 3_000_320


@pytest.mark.parametrize("seek", [True, False])
def test_payloads_stream_and_what_is_not_taken_is_skipped(seek: bool) -> None:
    data = make(["a", "b", "c"], tarfile.USTAR_FORMAT, lambda index: 300_000 + index)
    stream = io.BytesIO(data) if seek else Unseekable(data)
    reader = TarReader(stream, where="t.tar", seek=seek, block=4096)
    heads = []
    for member in reader:
        if member.name != "b":
            payload = reader.open()
            heads.append(payload.read(70_000))
            if member.name == "c":
                assert len(payload.read()) == member.size - 70_000
                assert payload.read() == b""
    assert heads == [b"\x00" * 70_000, b"\x02" * 70_000]


def test_memory_stays_flat_for_large_members() -> None:
    class Zeros(io.RawIOBase):
        def __init__(self, head: bytes, size: int) -> None:
            self.left = [head, size]

        def read(self, size: int = -1) -> bytes:
            head, zeros = self.left
            assert isinstance(head, bytes)
            assert isinstance(zeros, int)
            if head:
                self.left[0] = head[size:]
                return head[:size]
            self.left[1] = max(0, zeros - size)
            return bytes(min(size, zeros))

    info = tarfile.TarInfo("big.bin")
    info.size = 1 << 28
    head = info.tobuf(tarfile.PAX_FORMAT)
    tracemalloc.start()
    try:
        members = list(TarReader(Zeros(head, info.size + 10240), where="t.tar"))
        assert [member.size for member in members] == [1 << 28]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_sizes_in_base_256_and_pax() -> None:
    info = tarfile.TarInfo("big.bin")
    info.size = 9 << 33
    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with pytest.raises(IntegrityError, match=f"{9 << 33} bytes"):
            read(info.tobuf(layout))


def test_a_global_header_holds_for_all_and_may_stand_alone() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}):
        pass
    assert read(out.getvalue()) == []
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "same.txt"}) as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
        tar.addfile(tarfile.TarInfo("b" * 120))
    assert [member.name for member, _ in read(out.getvalue())] == ["same.txt", "b" * 120]


def test_names_that_are_not_utf8_stay_distinct() -> None:
    info = tarfile.TarInfo("a\udcff.txt")
    data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024)
    assert read(data)[0][0].name == "a\udcff.txt"


def test_signed_checksums() -> None:
    header = bytearray(tarfile.TarInfo("é.txt").tobuf(tarfile.GNU_FORMAT))
    header[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)
    header[148:156] = b"%06o\0 " % signed
    assert read(bytes(header) + bytes(1024))[0][0].name == "é.txt"


@pytest.mark.parametrize("cut", [1, 511, 600, 1500, 3000, -1024 * 8])
@pytest.mark.parametrize("seek", [True, False])
def test_truncation_names_file_offset_and_member(cut: int, seek: bool) -> None:
    data = make(["first.bin", "second.bin"], tarfile.USTAR_FORMAT, lambda index: 2000)[:cut]
    with pytest.raises(IntegrityError, match=r"at byte \d+") as caught:
        read(data, seek=seek)
    assert caught.value.url == "t.tar"
    if cut > 511:
        assert "first.bin" in str(caught.value) or "second.bin" in str(caught.value)


def test_a_tar_cut_between_members_is_noticed() -> None:
    data = make(["a.bin", "b.bin"], tarfile.USTAR_FORMAT, lambda index: 512)
    with pytest.raises(IntegrityError, match="without the two empty blocks"):
        read(data[:1024])
    with pytest.raises(IntegrityError, match="an empty block with more data"):
        read(data[:1024] + bytes(512) + data[1024:])


def test_damage_is_noticed() -> None:
    data = bytearray(make(["a.bin", "b.bin"], tarfile.USTAR_FORMAT, lambda index: 512))
    data[1030] ^= 4
    with pytest.raises(IntegrityError, match=r"bad header checksum at byte 1024, after member 'a\.bin'"):
        read(bytes(data))
    with pytest.raises(IntegrityError, match="not a tar file"):
        read(b"<html>" * 1000)
    with pytest.raises(IntegrityError, match="not a tar file"):
        read(b"")


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    with open(tmp_path / "s.bin", "wb") as file:
        file.truncate(1 << 24)
    for layout in ("gnu", "posix"):
        path = tmp_path / f"{layout}.tar"
        subprocess.run(["tar", "-S", f"--format={layout}", "-C", tmp_path, "-cf", path, "s.bin"], check=True)
        with pytest.raises(IntegrityError, match="sparse"):
            read(path.read_bytes())


@given(st.binary(max_size=3000), st.booleans())
def test_random_bytes_end_cleanly_or_are_refused(data: bytes, seek: bool) -> None:
    _must_not_crash(data, seek)


SEEDS = [
    make(NAMES[:5], tarfile.USTAR_FORMAT),
    make(NAMES, tarfile.GNU_FORMAT),
    make(NAMES, tarfile.PAX_FORMAT),
]


@settings(max_examples=400)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=12)), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_mutated_tars_end_cleanly_or_are_refused(
    seed: bytes, edits: list[tuple[int, bytes]], mend: bool, seek: bool
) -> None:
    data = bytearray(seed)
    for offset, piece in edits:
        at = offset % len(data)
        data[at : at + len(piece)] = piece
        if mend:
            _mend_checksum(data, at - at % 512)
    _must_not_crash(bytes(data), seek)


def _mend_checksum(data: bytearray, at: int) -> None:
    """Let the parser believe a changed header, so that its fields are tried and not only the sum."""
    header = data[at : at + 512]
    if header[257:262] == b"ustar":
        header[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(header)


def _must_not_crash(data: bytes, seek: bool) -> None:
    try:
        members = read(data, seek=seek)
    except IntegrityError as error:
        message = str(error)
        message.encode()
        if "\n" in message:
            raise AssertionError(message) from error
    else:
        assert all(len(payload) == member.size for member, payload in members)
