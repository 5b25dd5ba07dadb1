"""Undamaged shards by other people's tools: verifying them reports nothing, however they are stored."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
import zstandard

from atdata_cli import inspect_dataset
from tests.servers import reference
from tests.unit.verified import found, report

FORMATS = ("gnu", "pax", "ustar", "v7", "oldgnu")
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


def folder(place: Path, *, longest: int) -> Path:
    """Samples of three fields, one of them empty, in folders, with names up to some 200 bytes."""
    names = [f"plain{number:03d}" for number in range(40)]
    names += [f"deep/er/{number:03d}" for number in range(40)]
    if longest > 100:
        names += ["p" * 80 + "/" + "q" * 60]
    if longest > 150:
        names += ["long" * 45, "ünï/cödé 日本", "語" * 60]
    for name in names:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".jpg").write_bytes(name.encode() * (len(name) % 37))
        path.with_name(path.name + ".json").write_text('{"a": 1}')
        path.with_name(path.name + ".txt").write_bytes(b"")
    return place


def clean(path: Path, samples: int) -> None:
    """Assert that a shard verifies, plain and compressed."""
    data = path.read_bytes()
    for ending, compress in COMPRESSED.items():
        stored = path.with_name(path.name + ending)
        stored.write_bytes(compress(data))
        result = report(stored)
        assert result.problems == ()
        assert result.samples == samples
        info = inspect_dataset(str(stored))
        assert (info.samples, info.bytes) == (samples, stored.stat().st_size)
        assert info.fields.keys() == {"jpg", "json", "txt"}
        assert info.fields["jpg"]["samples"] == samples


@pytest.mark.parametrize("start", [["."], ["deep", *(f"plain{number:03d}.jpg" for number in range(1))]])
@pytest.mark.parametrize("layout", FORMATS)
def test_gnu_tar(tmp_path: Path, layout: str, start: list[str]) -> None:
    longest = {"v7": 99, "ustar": 150}.get(layout, 255)
    source = folder(tmp_path / "in", longest=longest)
    shard = tmp_path / "out.tar"
    line = ["tar", "--sort=name", f"--format={layout}", "-C", source, "-cf", shard]
    subprocess.run([*line, *start], check=True)
    clean(shard, {99: 80, 150: 81, 255: 84}[longest] if start == ["."] else 41)


@pytest.mark.parametrize("layout", ["pax", "ustar", "gnutar", "v7"])
def test_bsdtar(tmp_path: Path, layout: str) -> None:
    assert shutil.which("bsdtar"), "bsdtar is needed: apt-get install libarchive-tools"
    longest = {"v7": 99, "ustar": 150}.get(layout, 255)
    source = folder(tmp_path / "in", longest=longest)
    # It stores files in the order in which they are named.
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    (tmp_path / "names").write_text("".join(f"./{name}\n" for name in names))
    shard = tmp_path / "out.tar"
    line = ["bsdtar", f"--format={layout}", "-C", source, "-cf", shard, "-n", "-T", tmp_path / "names"]
    subprocess.run(line, check=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    clean(shard, {99: 80, 150: 81, 255: 84}[longest])


@pytest.mark.parametrize("compress", [False, True])
def test_webdataset(tmp_path: Path, compress: bool) -> None:
    ending = ".tar.gz" if compress else ".tar"
    pattern = str(tmp_path / f"shard-%06d{ending}")
    with webdataset.ShardWriter(pattern, maxcount=30, verbose=0) as writer:
        for number in range(100):
            key = "k" * (number + 1) + f"/{number:04d}" + "é" * (number % 3)
            writer.write({"__key__": key, "txt": f"text {number}", "json": {"n": number}, "bin": b""})
    result = report(tmp_path)
    assert result.problems == ()
    assert (result.shards, result.samples) == (4, 100)


REFERENCE = """
import sys
import atdata
import numpy as np
from atdata.stores import LocalDiskStore

@atdata.packable
class Row:
    image: np.ndarray
    label: str
    tags: list[str]

class Rows:
    def ordered(self, batch_size=None):
        for number in range(100):
            yield Row(image=np.zeros((number, 3), "f4"), label=str(number), tags=["a"] * (number % 3))

LocalDiskStore(sys.argv[1]).write_shards(Rows(), prefix="rows", maxcount=30, verbose=0)
"""


def test_the_reference_library(tmp_path: Path) -> None:
    subprocess.run([reference.python(), "-c", REFERENCE, tmp_path], check=True)
    result = report(tmp_path / "rows")
    assert result.problems == ()
    assert (result.shards, result.samples) == (4, 100)


def test_an_unsorted_tar_of_foreign_making_is_named_as_such(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", longest=99)
    names = sorted((path for path in source.glob("*.*")), key=lambda path: (path.suffix, path.name))
    shard = tmp_path / "x.tar"
    subprocess.run(["tar", "-C", source, "-cf", shard, *(path.name for path in names)], check=True)
    assert {kind for kind, *_ in found(shard)} == {"split-sample"}
    assert len(found(shard)) == 2 * 40
