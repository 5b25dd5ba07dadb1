"""What verifying says of damaged shards: kind, shard, key and offset, all of them and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atdata_cli.samples.tar import Kind as MemberKind
from atdata_cli.shards import shardcheck
from atdata_cli.shards.manifest import MANIFEST, Manifest, SplitRow
from tests.unit.verified import (
    JPG,
    JSON,
    STRIDE,
    Found,
    damage,
    dataset,
    found,
    mend_checksum,
    packed,
    report,
    samples,
    shard,
    tar,
)

NAME = "shard-000000.tar"
CHANGED: list[Found] = [("hash", NAME, None, None)]
RESIZED: list[Found] = [("size", NAME, None, None), *CHANGED]
END = 3 * STRIDE  # of the members of three samples
COUNT: Found = ("count", NAME, None, None)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """One shard of three samples, with its manifest."""
    return dataset(tmp_path / "d", {NAME: samples(0, 1, 2)})


def same(place: Path, *expected: Found) -> None:
    """Assert that exactly these problems are found, in order of shard and offset."""
    result = found(place)
    assert sorted(result, key=str) == sorted(expected, key=str)
    offsets = [(shard, -1 if offset is None else offset) for _, shard, _, offset in result]
    assert offsets == sorted(offsets)


def test_undamaged(three: Path) -> None:
    result = report(three)
    assert result.problems == ()
    assert (result.shards, result.samples, result.bytes) == (1, 3, 10240)


# --- structure ---


def members() -> list[tuple[str, int, int]]:
    """Key, header's offset and size of each member of three samples."""
    return [
        member
        for number in range(3)
        for member in (
            (f"{number:04d}", number * STRIDE, len(JPG)),
            (f"{number:04d}", number * STRIDE + 1536, len(JSON)),
        )
    ]


def truncation(cut: int) -> list[Found]:
    """What is wrong with three samples' tar if it ends at *cut*."""
    if cut < 512:
        return [("not-a-tar", NAME, None, 0), COUNT]
    whole = sum(1 for number in range(3) if cut >= number * STRIDE + 512 + len(JPG))
    count = [COUNT] if whole < 3 else []
    if cut >= END + 1024:
        return []
    for key, header, _ in reversed(members()):
        if cut > header and cut < header + 512:
            return [("truncated", NAME, None, header), *count]
        if cut >= header + 512:
            end = header + 512 + (1024 if header % STRIDE == 0 else 512)
            return [("truncated", NAME, key, header) if cut < end else ("no-end", NAME, None, end), *count]
    raise AssertionError(cut)


@pytest.mark.parametrize(
    ("cut", "detail"),
    [
        (STRIDE + 100, "the file ends inside a header, after member '0000.json'"),
        (STRIDE + 700, "the member '0001.jpg' has 768 bytes, the file ends at byte 3260"),
        (STRIDE, "the file ends without the two empty blocks that end a tar, after member '0000.json'"),
    ],
)
def test_a_problem_says_nothing_twice(three: Path, cut: int, detail: str) -> None:
    path = three / NAME
    path.write_bytes(path.read_bytes()[:cut])
    assert detail in [problem.detail for problem in report(three).problems]


def test_truncated_at_every_boundary(three: Path) -> None:
    path = three / NAME
    whole = path.read_bytes()
    boundaries = {at for block in range(0, len(whole), 256) for at in (block - 1, block, block + 1) if at >= 0}
    boundaries |= {header + 512 + size + side for _, header, size in members() for side in (-1, 0, 1)}
    for cut in sorted(boundaries):
        path.write_bytes(whole[:cut])
        assert sorted(found(three), key=str) == sorted(RESIZED + truncation(cut), key=str), cut


@pytest.mark.parametrize("sample", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 110, 130, 150, 156, 257, 340, 500])
def test_a_flipped_bit_in_a_header(three: Path, sample: int, place: int) -> None:
    at = sample * STRIDE

    def flip(data: bytearray) -> None:
        data[at + place] ^= 2

    damage(three / NAME, flip)
    key = f"{sample:04d}" if place else f"2{sample:03d}"  # as the damaged header has it
    kind = "not-a-tar" if at == 0 and place == 257 else "bad-checksum"
    same(three, *CHANGED, (kind, NAME, None if kind == "not-a-tar" else key, at))


def test_a_flipped_bit_in_a_payload(three: Path) -> None:
    damage(three / NAME, lambda data: data[:600] + b"\xff" + data[601:])
    same(three, *CHANGED)


def test_wrong_checksums_everywhere_are_all_listed(three: Path) -> None:
    def wrong(data: bytearray) -> None:
        for number in range(3):
            data[number * STRIDE + 148 : number * STRIDE + 154] = b"000000"

    damage(three / NAME, wrong)
    same(three, *CHANGED, *(("bad-checksum", NAME, f"{number:04d}", number * STRIDE) for number in range(3)))


@pytest.mark.parametrize("size", [10 << 30, 1 << 62])
def test_a_header_that_claims_more_than_there_is(three: Path, size: int) -> None:
    def claim(data: bytearray) -> None:
        data[STRIDE + 124 : STRIDE + 136] = b"\x80" + size.to_bytes(11, "big")
        mend_checksum(data, STRIDE)

    damage(three / NAME, claim)
    same(three, *CHANGED, ("truncated", NAME, "0001", STRIDE))


def test_an_impossible_size(three: Path) -> None:
    def claim(data: bytearray) -> None:
        data[STRIDE + 124 : STRIDE + 136] = b"\xff" * 12
        mend_checksum(data, STRIDE)

    damage(three / NAME, claim)
    same(three, *CHANGED, ("bad-header", NAME, "0001", STRIDE))


def test_a_sparse_file(three: Path) -> None:
    def sparse(data: bytearray) -> None:
        data[STRIDE + 156] = ord("S")
        mend_checksum(data, STRIDE)

    damage(three / NAME, sparse)
    same(three, *CHANGED, ("bad-header", NAME, "0001", STRIDE))


def test_bytes_that_are_missing_or_too_many_in_the_middle(three: Path) -> None:
    whole = (three / NAME).read_bytes()
    damage(three / NAME, lambda data: data[: STRIDE + 700] + data[STRIDE + 1000 :])
    same(three, *RESIZED, ("bad-checksum", NAME, None, STRIDE + 1536))
    (three / NAME).write_bytes(whole[: STRIDE + 700] + b"\r" + whole[STRIDE + 700 :])
    same(three, *RESIZED, ("bad-checksum", NAME, None, STRIDE + 1536))


def test_a_tar_inside_junk(three: Path) -> None:
    whole = (three / NAME).read_bytes()
    for junk in (b"<html>" * 1000, b"\xff" * 512, b"junk"):
        (three / NAME).write_bytes(junk + whole + junk)
        same(three, *RESIZED, ("not-a-tar", NAME, None, 0), ("trailing-bytes", NAME, None, len(junk) + len(whole)))


def test_nothing_but_junk_or_nothing(three: Path) -> None:
    for junk in (b"", b"x", b"<html>" * 1000, b"ustar  \0" * 10_000, bytes([255]) * 10240):
        (three / NAME).write_bytes(junk)
        sizes = CHANGED if len(junk) == 10240 else RESIZED
        same(three, *sizes, COUNT, ("not-a-tar", NAME, None, 0))


def test_zeros_are_an_empty_tar(three: Path, tmp_path: Path) -> None:
    damage(three / NAME, lambda data: bytes(len(data)))
    same(three, *CHANGED, COUNT)
    (tmp_path / "z.tar").write_bytes(bytes(10240))
    assert found(tmp_path / "z.tar") == [("empty", "z.tar", None, None)]


def test_holes(three: Path) -> None:
    whole = (three / NAME).read_bytes()
    (three / NAME).write_bytes(whole[:STRIDE] + bytes(512) + whole[STRIDE:])
    same(three, *RESIZED, ("empty-block", NAME, None, STRIDE))
    (three / NAME).write_bytes(whole[:STRIDE] + bytes(1024) + whole[STRIDE:])  # here readers stop
    same(three, *RESIZED, COUNT, ("last-key", NAME, "0000", None), ("trailing-bytes", NAME, None, STRIDE + 1024))


def test_two_tars_in_one_file(three: Path) -> None:
    damage(three / NAME, lambda data: data + data)
    same(three, *RESIZED, ("trailing-bytes", NAME, None, 10240))


def test_damage_does_not_lead_into_a_tar_inside_a_member(tmp_path: Path) -> None:
    inner = tar([("inner.txt", b"x")])
    place = dataset(tmp_path / "d", {NAME: [("a.bin", inner), ("b.bin", inner), ("c.bin", inner)]})
    at = 512 + len(inner)
    damage(place / NAME, lambda data: data[: at + 5] + b"\x07" + data[at + 6 :])
    same(place, *CHANGED, COUNT, ("bad-checksum", NAME, "b", at))


@pytest.mark.parametrize(("compress", "vital"), [(gzip.compress, -8), (zstandard.compress, -9)])
def test_compressed_shards(tmp_path: Path, compress: Callable[[bytes], bytes], vital: int) -> None:
    data = compress(tar(samples(*range(200))))
    path = tmp_path / "x.tar.gz"
    path.write_bytes(data)
    assert found(path) == []
    path.write_bytes(data[: len(data) // 2])
    assert [kind for kind, *_ in found(path)] == ["compression"]
    path.write_bytes(data[:vital] + bytes([data[vital] ^ 0x55]) + data[vital + 1 :])
    assert [kind for kind, *_ in found(path)] == ["compression"]
    path.write_bytes(compress(tar(samples(1))[: STRIDE - 512]))
    assert found(path) == [("truncated", "x.tar.gz", "0001", 1536)]


def test_a_bad_extended_header_takes_its_member_with_it(tmp_path: Path) -> None:
    long = "k" * 120
    data = bytearray(tar([("a.txt", b"1"), (long + ".txt", b"2"), ("z.txt", b"3")], tarfile.PAX_FORMAT))
    data[1024 + 512] = ord("x")  # the length of its first record
    (tmp_path / "x.tar").write_bytes(data)
    result = report(tmp_path / "x.tar")
    assert [(problem.kind, problem.offset) for problem in result.problems] == [("bad-header", 1024)]
    assert result.samples == 2


# --- samples ---


def test_keys_that_come_back(tmp_path: Path) -> None:
    path = shard(tmp_path, [("a.txt", b"1"), ("b.txt", b"2"), ("a.txt", b"3"), ("b.json", b"4"), ("c.txt", b"5")])
    assert found(path) == [("duplicate-key", "x.tar", "a", 2048), ("split-sample", "x.tar", "b", 3072)]


def test_interleaved_samples_are_said_once_each(tmp_path: Path) -> None:
    members = sorted(samples(0, 1, 2), key=lambda member: member[0].partition(".")[2])
    place = dataset(tmp_path / "d", {NAME: members})
    split = [("split-sample", NAME, f"{number:04d}", 3 * 1536 + number * 1024) for number in range(3)]
    result = found(place)
    assert [problem for problem in result if problem[0] == "split-sample"] == split
    assert {problem[0] for problem in result} == {"split-sample", "count"}


def test_a_member_that_comes_twice_at_once(tmp_path: Path) -> None:
    path = shard(tmp_path, [("a.txt", b"1"), ("a.txt", b"2"), ("b.txt", b"3")])
    assert found(path) == [("duplicate-member", "x.tar", "a", 1024)]


def test_names(tmp_path: Path) -> None:
    bad = ["../up.txt", "/root.txt", "a//b.txt", "a\x1b[2J.txt", "c._x", "d." + "x" * 9, "e.q\x07"]
    path = shard(tmp_path, [(name, b"") for name in [*bad, "README", "__meta__.json", ".hidden", "f/._g.jpg"]])
    assert found(path) == [
        ("unsafe-name", "x.tar", "../up", 0),
        ("unsafe-name", "x.tar", "/root", 512),
        ("unsafe-name", "x.tar", "a//b", 1024),
        ("unsafe-name", "x.tar", "a\x1b[2J", 1536),
        ("unsafe-name", "x.tar", "c", 2048),
        ("unsafe-name", "x.tar", "e", 3072),
        ("no-field", "x.tar", None, 3584),
    ]


def test_names_of_any_bytes_and_length(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for name in ("a\udcff.txt", "n" * 100_000 + ".txt", "a\udcff.txt", "n" * 100_000 + ".txt", "b.txt"):
            archive.addfile(tarfile.TarInfo(name))
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    kinds = [(kind, key and key[:2]) for kind, _, key, _ in found(tmp_path / "x.tar")]
    assert kinds == [
        ("unsafe-name", "a\udcff"),
        ("unsafe-name", None),
        ("unsafe-name", "a\udcff"),
        ("duplicate-key", "a\udcff"),
        ("unsafe-name", None),
        ("duplicate-key", "nn"),
    ]


def test_links_and_devices(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number, kind in enumerate((tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)):
            info = tarfile.TarInfo(f"{number}.txt")
            info.type = kind
            archive.addfile(info)
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    links: list[MemberKind] = ["hardlink", "symlink", "other"]
    expected = [("no-content", "x.tar", None, 512 * number) for number in range(len(links))]
    assert found(tmp_path / "x.tar") == expected


def test_fields_that_the_manifest_requires_or_does_not_know(tmp_path: Path) -> None:
    place = dataset(tmp_path / "d", {NAME: samples(0, 1)})
    members = [("0000.jpg", JPG), ("0001.jpg", JPG), ("0001.json", JSON), ("0001.png", b"")]
    (place / NAME).write_bytes(tar(members))
    same(place, *CHANGED, ("missing-field", NAME, "0000", 0), ("schema", NAME, "0001", 1536))


def test_without_a_manifest_what_nearly_all_have_is_missed(tmp_path: Path) -> None:
    for number in range(2):
        members = samples(*range(number * 100, number * 100 + 100))
        if number:
            members.remove(("0125.json", JSON))
        shard(tmp_path, members, f"shard-{number:06d}.tar")
    assert found(tmp_path) == [("missing-field", "shard-000001.tar", "0125", 25 * STRIDE)]
    # Half of them without is how they are meant.
    shard(tmp_path, [(f"{number:04d}.jpg", b"") for number in range(200, 300)], "shard-000002.tar")
    assert found(tmp_path) == []


# --- the dataset ---


def test_what_is_wrong_with_the_whole(tmp_path: Path) -> None:
    names = [f"shard-{number:06d}.tar" for number in range(5)]
    members = {name: samples(10 * number, 10 * number + 1) for number, name in enumerate(names)}
    del members[names[3]]
    place = dataset(tmp_path / "d", members, samples=99)
    (place / names[1]).unlink()
    (place / "shard-000007.tar").write_bytes(b"")
    damage(place / names[2], lambda data: data[:600] + b"!" + data[601:])
    assert found(place) == [
        ("damaged-manifest", "manifest.json", None, None),
        ("unknown-shard", "shard-000007.tar", None, None),
        ("shard-gap", names[3], None, None),
        ("missing-shard", names[1], None, None),
        ("hash", names[2], None, None),
    ]


def test_gaps_without_a_manifest(tmp_path: Path) -> None:
    for number in (3, 4, 7, 9):
        shard(tmp_path, samples(number), f"train-{number:04d}.tar")
    for number in (1, 2):
        shard(tmp_path, samples(number + 2), f"val-{number:04d}.tar")  # keys of the other series
    assert found(tmp_path) == [("shard-gap", "train-0005.tar", None, None), ("shard-gap", "train-0008.tar", None, None)]
    # What a pattern leaves out is no gap.
    assert found(f"{tmp_path}/train-000[79].tar") == [("shard-gap", "train-0008.tar", None, None)]
    shard(tmp_path, samples(8), "train-0008.tar")
    assert found(f"{tmp_path}/train-000[79].tar") == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_keys_of_other_shards(tmp_path: Path, jobs: int) -> None:
    shards = {
        "shard-000000.tar": samples(5, 1, 9),
        "shard-000001.tar": [*samples(20, 21), ("0022.jpg", JPG)],
        "shard-000002.tar": [("0022.json", JSON), *samples(23)],
        "shard-000003.tar": samples(7, 9, 30),
    }
    for name, members in shards.items():
        shard(tmp_path, members, name)
    assert found(tmp_path, jobs) == [
        ("split-sample", "shard-000002.tar", "0022", 0),
        ("duplicate-key", "shard-000003.tar", "0009", STRIDE),
    ]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_report_does_not_depend_on_jobs(tmp_path: Path, jobs: int) -> None:
    shards = {f"shard-{number:06d}.tar": samples(*range(10 * number, 10 * number + 10)) for number in range(6)}
    place = dataset(tmp_path / "d", shards)
    for name in list(shards)[::2]:
        damage(place / name, lambda data: data[:7000])
    assert report(place, jobs) == report(place, 1)
    assert len(report(place, jobs).problems) == 3 * 4


def test_splits(tmp_path: Path) -> None:
    root = tmp_path / "d"
    rows = {}
    for number, split in enumerate(("train", "val")):
        part = dataset(root / split, {NAME: samples(number, 5)}, split=split)
        text = (part / MANIFEST).read_bytes()
        manifest = Manifest.loads(text, url="")
        rows[split] = SplitRow(f"{split}/{MANIFEST}", hashlib.sha256(text).hexdigest(), 2, 10240, manifest.payload, 1)
    whole = Manifest("d", 4, 20480, 2 * manifest.payload, "files", "", splits=rows)
    (root / MANIFEST).write_bytes(whole.dumps())
    assert found(root) == [("duplicate-key", NAME, "0005", STRIDE)]
    damage(root / "val" / MANIFEST, lambda data: data.replace(b'"rejected": 0', b'"rejected": 1'))
    assert found(root)[0] == ("hash", "manifest.json", None, None)


def test_no_more_than_a_person_could_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shardcheck, "_MOST_PROBLEMS", 10)
    path = shard(tmp_path, [(f"{number}", b"") for number in range(50)])
    result = report(path, 1)
    assert [problem.kind for problem in result.problems] == ["no-field"] * 10 + ["more"]
    assert "40 more" in result.problems[-1].detail


# --- anything ---

SEEDS = [
    tar(samples(0, 1, 2)),
    tar([("k" * 120 + ".jpg", JPG), ("ä.json", JSON)], tarfile.PAX_FORMAT),
    tar([("k" * 120 + ".jpg", JPG), ("ä.json", JSON)], tarfile.GNU_FORMAT),
    tar(packed([(f"{number}", {"n": number, "t": ["a"], "b": b"x"}) for number in range(5)])),
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 12_000), st.binary(min_size=1, max_size=12)), max_size=4),
    st.integers(0, 11_000),
    st.booleans(),
)
def test_any_damage_is_survived(
    tmp_path: Path, seed: bytes, edits: list[tuple[int, bytes]], cut: int, mend: bool
) -> None:
    data = bytearray(seed)
    for offset, piece in edits:
        at = offset % len(data)
        data[at : at + len(piece)] = piece
        if mend and data[at - at % 512 + 257 :].startswith(b"ustar"):
            mend_checksum(data, at - at % 512)
    path = tmp_path / "x.tar"
    path.write_bytes(data[: cut or len(data)])
    result = report(path, 1)
    assert result.bytes == len(data[: cut or len(data)])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=2000))
def test_any_bytes_are_survived(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    assert report(tmp_path / "x.tar", 1).bytes == len(data)
