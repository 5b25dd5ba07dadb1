"""A scan takes plain headers many at a time; what it finds is what one by one gives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atdata_cli.errors import IntegrityError
from atdata_cli.refs import parse
from atdata_cli.samples.keys import is_meta, split_name
from atdata_cli.samples.tar import Member, Run, TarReader
from atdata_cli.shards.reader import locate
from atdata_cli.shards.scan import inspect
from atdata_cli.stores.inputs import StoreFiles

NAMES = st.one_of(
    st.integers(0, 9999).map("{:06d}.txt".format),
    st.integers(0, 9999).map("class/{:d}.seg.png".format),
    st.text(alphabet="ab./_\n\0é日", min_size=1, max_size=12),
    st.sampled_from(["x" * 96 + ".txt", "y" * 99 + ".", "long/" * 40 + "a.txt", "__meta__", "__key__.a", "d.x/a.b"]),
)
MEMBERS = st.lists(st.tuples(NAMES, st.integers(0, 3000), st.integers(0, 2)), max_size=40)


def make(members: Sequence[tuple[str, int, int]], layout: int, repeat: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as tar:
        for turn in range(repeat):
            for name, size, stamp in members:
                info = tarfile.TarInfo(name if turn % 2 else f"{turn}{name}")
                info.size, info.mtime = size, stamp
                tar.addfile(info, io.BytesIO(bytes(size)))
    return out.getvalue()


def one_by_one(data: bytes, seek: bool) -> list[tuple[str, int]] | str:
    found = []
    try:
        for member in TarReader(io.BytesIO(data), where="t.tar", seek=seek, block=8192):
            found.append((member.name, member.size))
    except IntegrityError as error:
        return str(error)
    return found


def together(data: bytes, seek: bool) -> list[tuple[str, int]] | str:
    found = []
    try:
        for item in TarReader(io.BytesIO(data), where="t.tar", seek=seek, block=8192).runs():
            if isinstance(item, Member):
                found.append((item.name, item.size))
            else:
                each = [item.names[at : at + 100] for at in range(0, len(item.names), 100)]
                names = [str(name.partition(b"\0")[0], "utf-8", "surrogateescape") for name in each]
                found += zip(names, item.sizes, strict=True)
    except IntegrityError as error:
        return str(error)
    return found


@settings(max_examples=150)
@given(
    MEMBERS,
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([1, 5]),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=2),
    st.none() | st.integers(0, 1 << 20),
)
def test_runs_are_the_members(members, layout, repeat, seek, flips, cut):
    if layout == tarfile.USTAR_FORMAT:
        members = [member for member in members if len(member[0].encode()) < 90]
    data = bytearray(make(members, layout, repeat))
    for at, bits in flips:
        data[at % len(data)] ^= bits
    if cut is not None:
        del data[cut % len(data) :]
    assert together(bytes(data), seek) == one_by_one(bytes(data), seek)


def test_plain_members_come_in_runs() -> None:
    data = make([(f"{number:05d}.txt", 100, 0) for number in range(1000)], tarfile.USTAR_FORMAT, 1)
    items = list(TarReader(io.BytesIO(data), where="t.tar", seek=True).runs())
    assert all(isinstance(item, Run) for item in items)
    assert sum(len(item.sizes) for item in items if isinstance(item, Run)) == 1000


@settings(max_examples=100)
@given(MEMBERS.filter(bool), st.sampled_from([1, 5]))
def test_a_scan_counts_as_the_rule_says(tmp_path_factory: pytest.TempPathFactory, members, repeat):
    path: Path = tmp_path_factory.getbasetemp() / "scan.tar"
    path.write_bytes(make(members, tarfile.PAX_FORMAT, repeat))
    check_counts(path)


@pytest.mark.parametrize("odd", ["bbb.x", "aab.x", "a.b.x", "ab/.x", "a/b.x", "a\nb.x", "bbb.y", "bbbbx", "b.x"])
def test_one_cut_serves_names_that_are_alike(tmp_path: Path, odd):
    path = tmp_path / "scan.tar"
    names = [f"{'aaa' if number < 9 else 'aab'}.x" for number in range(20)]
    path.write_bytes(make([(name, 9, 0) for name in [*names, odd, *names]], tarfile.PAX_FORMAT, 1))
    check_counts(path)


def check_counts(path: Path) -> None:
    """A scan of this tar finds what a count of its members finds."""
    samples, payload, skipped, last, fields = 0, 0, 0, None, {}
    for member in TarReader(io.BytesIO(path.read_bytes()), where="t.tar", seek=True):
        split = split_name(member.name) if member.kind == "file" else None
        if split is None or is_meta(member.name):
            skipped += 1
            continue
        samples += split[0] != last
        last = split[0]
        payload += member.size
        fields.setdefault(split[1], []).append(member.size)
    info = inspect(locate(parse(str(path)), StoreFiles()), StoreFiles())
    assert (info.samples, info.payload, info.skipped) == (samples, payload, skipped)
    assert {name: (known["samples"], known["bytes"], known["size"]) for name, known in info.fields.items()} == {
        name: (len(sizes), sum(sizes), [min(sizes), max(sizes)]) for name, sizes in fields.items()
    }
