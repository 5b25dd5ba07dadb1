"""The report's parts, with input that no honest program makes."""

from __future__ import annotations

import base64
import io
import json
import struct
import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atdata_cli.errors import NotFoundError
from atdata_cli.refs import parse
from atdata_cli.report.charts import histogram
from atdata_cli.report.columns import Columns
from atdata_cli.report.page import render, write_report
from atdata_cli.report.pictures import Undecodable, array_picture, sparkline, thumbnail
from atdata_cli.samples.codec import packer
from atdata_cli.shards.reader import locate
from atdata_cli.shards.scan import inspect
from atdata_cli.stores.inputs import StoreFiles

FILES = StoreFiles()


def _tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def _page(reference: str) -> str:
    located = locate(parse(reference), FILES)
    return render(inspect(located, FILES), located, FILES)


def _image(src: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_images_become_small_and_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    wide = Image.fromarray(np.linspace(0, 255, 1000).astype("u1")[None].repeat(500, 0))
    picture = thumbnail(_saved(wide, "JPEG", exif=exif))
    assert picture.note == "500 × 1000 JPEG"
    assert (picture.width, picture.height) == _image(picture.src).size == (160, 320)
    shown = np.asarray(_image(picture.src)).astype(int)
    assert shown[5].mean() < 20
    assert shown[-5].mean() > 235


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "TIFF"), ("P", "GIF"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("I;16", "TIFF"), ("F", "TIFF")],
)
def test_every_mode_is_shown(mode, kind):
    ramp = Image.fromarray(np.linspace(0, 255, 200).astype("u1")[None].repeat(100, 0))
    array = np.asarray(ramp).astype("u2") * 200
    image = Image.fromarray(array) if mode == "I;16" else ramp.convert(mode)
    picture = thumbnail(_saved(image, kind))
    assert picture.src.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
    shown = np.asarray(_image(picture.src).convert("L")).astype(int)
    assert shown[:, -8:].mean() > shown[:, :8].mean() + 200


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size, and holds nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))]
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_png_of_size(8000, 7000), "too many"),
        (_png_of_size(12000, 12000), "too many"),
        (_png_of_size(60000, 60000), "too many"),
        (_png_of_size(100, 100), "damaged"),
        (b"", "format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n", "format"),  # no Ghostscript for strangers
        (b"\xff\xd8\xff\xe0" + bytes(100), "image"),
    ],
)
def test_what_is_not_decoded(data, reason):
    with pytest.raises(Undecodable, match=reason):
        thumbnail(data)


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (np.zeros((10, 20)), (20, 10)),
        (np.full((10, 20), np.nan), (20, 10)),
        (np.array([[np.inf, -np.inf], [1e308, -1e308]]), (2, 2)),
        (np.eye(9, dtype=bool), (9, 9)),
        (np.ones((4, 5, 3), "u1"), (5, 4)),
        (np.ones((3, 8, 9), "f4"), (9, 8)),
        (np.ones((7, 8, 9)), (9, 8)),
        (np.ones((2, 2, 6, 5), "c16"), (5, 6)),
        (np.ones((1, 800)), (267, 33)),
        (np.arange(4000 * 3000, dtype="i8").reshape(3000, 4000), (308, 231)),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_arrays_become_pictures(array, size):
    picture = array_picture(array)
    assert picture is not None
    assert _image(picture.src).size == size


def test_what_has_no_picture():
    for array in (np.zeros(5), np.zeros((0, 5)), np.array([["a", "b"]]), np.zeros((3, 3), "M8[s]"), np.array(1)):
        assert array_picture(array) is None
    for array in (np.zeros(1), np.full(5, np.nan), np.array(["a", "b"]), np.zeros((2, 2))):
        assert sparkline(array) == ""
    assert sparkline(np.array([1e308, -1e308, np.inf])) == "0.0,2.0 160.0,38.0"


numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))


@given(st.lists(numbers, min_size=1, max_size=60))
def test_a_histogram_counts_every_value(values):
    chart = histogram("t", values, what="value")
    assert 1 <= len(chart.bars) <= 20
    assert sum(int(bar.shown) for bar in chart.bars) == len(values)
    assert max(bar.share for bar in chart.bars) == 1


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(), st.floats()),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=9,
)


@given(st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=3), min_size=1, max_size=9))
def test_values_of_any_kind_are_drawn(rows):
    columns = Columns()
    for row in rows:
        columns.add(row)
    for _, column in columns:
        column.chart()


def test_the_page_has_an_end(tmp_path):
    rng = np.random.default_rng(0)
    noise = _saved(Image.fromarray(rng.integers(0, 255, (320, 320, 4), dtype="u1")), "PNG")
    sound = b"RIFF" + struct.pack("<I", 1 << 20) + b"WAVE" + rng.bytes(1 << 20)
    members = {}
    for number in range(30):
        for field in range(6):
            members[f"{number:02d}.{field}.png"] = noise
            members[f"{number:02d}.{field}.txt"] = b"<&>" * 100_000
            members[f"{number:02d}.{field}.json"] = json.dumps({f"{n}<": "&" * 90 for n in range(900)}).encode()
        members[f"{number:02d}.wav"] = sound
        members |= {f"{number:02d}.x{n:04d}": b"x" for n in range(300)}
    page = _page(_tar(tmp_path / "large.tar", members))
    assert len(page.encode()) < 10_000_000
    assert "left out to keep this page small" in page


def test_packed_samples_of_strangers(tmp_path):
    pack = packer()
    deep: list = []
    for _ in range(400):
        deep = [deep]
    rows = [
        {"a": 1, "image": {"bytes": _saved(Image.new("L", (9, 9)), "PNG"), "path": "x.png"}},
        {"a": "text", "deep": deep, "<b>": {"x": {"y": {"z": b"\0"}}}},
        {"a": [2**64 - 1, -(2**63), 1e308, float("nan")] * 3, "inf": float("inf")},
    ]
    members = {f"{n}.msgpack": pack(row) for n, row in enumerate(rows)}
    members["3.msgpack"] = b"\xc1"
    members["4.msgpack"] = b"\x81\xa1t\xd6\xff\0\0\0\0"  # a timestamp
    members["5.msgpack"] = b"\x81\xa1t\xd4\x05x"  # an unknown extension type
    page = _page(_tar(tmp_path / "packed.tar", members))
    assert page.count("<article") == 6
    assert "it is no msgpack map" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


@dataclass(frozen=True)
class _Wrong:
    kind: str
    shard: str | None
    key: str | None
    offset: int | None
    detail: str


def test_problems_that_a_check_found(tmp_path):
    reference = _tar(tmp_path / "a.tar", {"a.txt": b"x"})
    located = locate(parse(reference), FILES)
    info = inspect(located, FILES)
    assert "atdata-cli inspect --verify" in render(info, located, FILES)
    clean = render(info, located, FILES, problems=[])
    assert "Every byte was checked." in clean
    assert "None found" in clean
    secret = "https://me:hunter2@host/a.tar?X-Amz-Signature=0123abc"
    wrong = [_Wrong("checksum", secret, "k<i>\x1b", 1536, f"at {secret}")] * 300
    page = render(replace(info, url=secret), located, FILES, problems=wrong)
    assert "hunter2" not in page
    assert "0123abc" not in page
    assert "k&lt;i&gt;\\x1b" in page
    assert "1,536" in page
    assert "and 100 more" in page


def test_the_file_is_whole_or_not_there(tmp_path, monkeypatch):
    located = locate(parse(_tar(tmp_path / "a.tar", {"a.txt": b"x"})), FILES)
    info = inspect(located, FILES)
    target = tmp_path / "real.html"
    target.write_text("old")
    (tmp_path / "link.html").symlink_to(target)
    write_report(info, located, FILES, str(tmp_path / "link.html"))
    assert (tmp_path / "link.html").is_symlink()
    assert target.read_text(encoding="utf-8").endswith("</html>\n")
    with pytest.raises(NotFoundError):
        write_report(info, located, FILES, str(tmp_path / "none" / "x.html"))
    monkeypatch.chdir(tmp_path)
    write_report(info, located, FILES, "here.html")
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "real.html", "link.html", "here.html"}
