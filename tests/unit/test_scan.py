"""A scan takes plain headers many at a time; what it finds is what one by one gives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atdata_cli.errors import IntegrityError
from atdata_cli.refs import parse
from atdata_cli.samples.keys import is_meta, split_name
from atdata_cli.samples.tar import Member, Run, TarReader
from atdata_cli.shards import headers
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


@settings(max_examples=100)
@given(
    st.lists(MEMBERS.filter(bool), min_size=1, max_size=3),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(2, 7),
    st.booleans(),
    st.none() | st.integers(0, 1 << 20),
)
def test_pieces_tell_what_a_whole_tells(
    tmp_path_factory: pytest.TempPathFactory, in_pieces, shards, layout, jobs, nested, cut
):
    folder = tmp_path_factory.mktemp("pieces")
    for number, members in enumerate(shards):
        if layout == tarfile.USTAR_FORMAT:
            members = [member for member in members if len(member[0].encode()) < 90]
        data = make(members, layout, 5)
        if nested:
            data = wrapped(data)
        if cut is not None and number == 1:
            data = data[: cut % len(data)]
        (folder / f"{number}.tar").write_bytes(data)
    assert told(folder, jobs) == told(folder, 1)


def wrapped(data: bytes) -> bytes:
    """A tar in a tar, between two others: its headers are no members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in (("a.txt", b"1"), ("a.tar", data), ("b.txt", b"2")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def told(folder: Path, jobs: int) -> list[headers.Scan] | tuple[str, str | None]:
    try:
        return headers.scan_shards(locate(parse(str(folder)), StoreFiles()).shards, StoreFiles(), jobs=jobs)
    except IntegrityError as error:
        return error.message, error.url


@pytest.fixture(scope="module")
def in_pieces() -> Iterator[None]:
    """Work is cut however small it is, and its pieces are read here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "_WORTH_FORKS", 0)
        patch.setattr(headers, "is_alone", lambda: True)
        patch.setattr(headers, "in_forks", lambda calls: [call() for call in calls])
        yield


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_most_pieces_begin_where_they_seem_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_pieces, layout):
    (tmp_path / "a.tar").write_bytes(make([(f"{number:05d}.txt", 900, 0) for number in range(1000)], layout, 1))
    read: list[int] = []
    once = headers._read

    def noted(shard, files, begin, stop):
        read.append(begin)
        return once(shard, files, begin, stop)

    monkeypatch.setattr(headers, "_read", noted)
    assert told(tmp_path, 4) == told(tmp_path, 1)
    assert len(read) == 4 + 1
    assert len(set(read)) == 4


def test_a_name_for_all_that_follow_reaches_all_pieces(tmp_path: Path, in_pieces):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"path": "all.txt"}) as tar:
        for number in range(100):
            info = tarfile.TarInfo(f"{number:05d}.txt")
            info.size = 900
            tar.addfile(info, io.BytesIO(bytes(900)))
    assert [scan.samples for scan in told(tmp_path, 3)] == [1]
    assert told(tmp_path, 3) == told(tmp_path, 1)
