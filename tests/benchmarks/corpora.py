"""What the benchmarks read: made from a fixed seed, so that every machine measures the same bytes.

Run as a program, it prints that many rows: ``python corpora.py 2000000``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROWS = 500_000
IMAGES = 10_000
MANY_ROWS = 2_000_000
SHARD_ROWS = 100_000
MEMBER_BYTES = 1 << 30
SHARD_MEMBERS = 40
SHARD_MEMBER_BYTES = 100 << 20

_SEED = 20
_WORDS = 2_000
_LABELS = ("cat", "dog", "bird", "fish", "horse")
_FOLDERS = 10  # as image folders have: one a class
_SMALLEST, _LARGEST = 90_000, 130_000


def rows(count: int) -> Iterator[str]:
    """JSON lines of 183 bytes on average: a number, a text, a label, a score, a short list."""
    made = random.Random(_SEED)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(made.choices(letters, k=made.randint(2, 10))) for _ in range(_WORDS)]
    for number in range(count):
        row = {
            "id": number,
            "text": " ".join(made.choices(words, k=made.randint(9, 20))),
            "label": made.choice(_LABELS),
            "score": round(made.random(), 6),
            "tags": [made.randrange(1000) for _ in range(made.randint(0, 4))],
        }
        yield json.dumps(row) + "\n"


def rows_file(folder: Path) -> Path:
    """``rows.jsonl``: 500,000 rows, 91 MB."""
    return _made_once(folder / "rows.jsonl", lambda path: _write_lines(path, rows(ROWS)))


def images_folder(folder: Path) -> Path:
    """10,000 images with a small JSON each, 1.1 GB; the images' bytes are random, as compressed ones look."""
    return _made_once(folder / "images", _make_images)


def rows_shard(folder: Path) -> Path:
    """One shard of 100,000 msgpack samples, without a manifest."""
    return _made_once(folder / "rows.tar", lambda path: _write_shard(path, rows(SHARD_ROWS)))


def large_member_folder(folder: Path) -> Path:
    """One file of 1 GiB: a hole, which takes no room on the disk and reads as zeros."""
    return _made_once(folder / "large-member", lambda path: _make_sparse(path, 1, MEMBER_BYTES))


def large_shard_folder(folder: Path) -> Path:
    """Files of 4 GB in all, again holes."""
    return _made_once(folder / "large-shard", lambda path: _make_sparse(path, SHARD_MEMBERS, SHARD_MEMBER_BYTES))


def _made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """What *make* puts at *path*, unless an earlier run did; never half of it."""
    if not path.exists():
        unfinished = path.with_name(path.name + ".unfinished")
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        print(f"making {path}", file=sys.stderr)
        make(unfinished)
        unfinished.rename(path)
    return path


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with path.open("w") as file:
        file.writelines(lines)


def _write_shard(path: Path, lines: Iterator[str]) -> None:
    import msgpack
    import webdataset

    with webdataset.TarWriter(str(path), encoder=False, mtime=0) as tar:
        for number, line in enumerate(lines):
            tar.write({"__key__": f"{number:010d}", "msgpack": msgpack.packb(json.loads(line))})


def _make_images(folder: Path) -> None:
    made = random.Random(_SEED)
    for number in range(IMAGES):
        place = folder / f"class{number % _FOLDERS}"
        place.mkdir(parents=True, exist_ok=True)
        size = made.randint(_SMALLEST, _LARGEST)
        (place / f"{number:05d}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + made.randbytes(size - 4))
        described = {"label": number % _FOLDERS, "width": 640, "height": 480, "caption": f"image {number}"}
        (place / f"{number:05d}.json").write_text(json.dumps(described))


def _make_sparse(folder: Path, count: int, size: int) -> None:
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:03d}.bin"
        path.touch()
        os.truncate(path, size)


if __name__ == "__main__":
    sys.stdout.writelines(rows(int(sys.argv[1])))
