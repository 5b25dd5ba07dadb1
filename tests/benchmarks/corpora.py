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
from itertools import islice
from pathlib import Path

ROWS = 500_000
PARQUET_ROWS = 1_000_000
IMAGES = 40_000
SOME_IMAGES = 10_000
FILES = 1_000_000
MANY_ROWS = 2_000_000
SHARD_ROWS = 100_000
MEMBER_BYTES = 1 << 30
SHARD_MEMBERS = 40
SHARD_MEMBER_BYTES = 100 << 20

_SEED = 20
_WORDS = 2_000
_LABELS = ("cat", "dog", "bird", "fish", "horse")
_CLASS_IMAGES = 1_000  # as image folders have them: a folder a class
_SMALLEST, _LARGEST = 90_000, 130_000
_FOLDER_SAMPLES = 5_000
_REPEATED = 100_000


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


def repeated_rows(count: int) -> Iterator[str]:
    """Many rows at the speed of a pipe: the first 100,000 again and again."""
    some = list(rows(min(count, _REPEATED)))
    while count > 0:
        yield "".join(some[:count])
        count -= len(some)


def rows_file(folder: Path, count: int = ROWS) -> Path:
    """``rows-COUNT.jsonl``: 500,000 rows, 91 MB."""
    made = rows if count <= ROWS else repeated_rows
    return _made_once(folder / f"rows-{count}.jsonl", lambda path: _write_lines(path, made(count)))


def parquet_file(folder: Path) -> Path:
    """The same kind of rows as columns: 1,000,000 in ten row groups."""
    return _made_once(folder / "rows.parquet", lambda path: _write_parquet(path, PARQUET_ROWS))


def images_folder(folder: Path) -> Path:
    """40,000 images with a small JSON each, 4.5 GB; the images' bytes are random, as compressed ones look."""
    return _made_once(folder / "images", _make_images)


def some_images_folder(folder: Path) -> Path:
    """The first 10,000 of them, 1.1 GB, by links to their folders."""
    images = images_folder(folder)
    return _made_once(folder / "some-images", lambda path: _link_images(path, images))


def files_folder(folder: Path) -> Path:
    """A million empty files, two a sample, in a hundred folders."""
    return _made_once(folder / "files", _make_files)


def sized_folder(folder: Path, size: int, count: int) -> Path:
    """*count* files of one size, incompressible, in folders of a thousand."""
    return _made_once(folder / f"sized-{size}", lambda path: _make_sized(path, size, count))


def rows_shard(folder: Path) -> Path:
    """One shard of 100,000 msgpack samples, without a manifest."""
    return _made_once(folder / "rows.tar", lambda path: _write_shard(path, rows(SHARD_ROWS)))


def large_member_folder(folder: Path) -> Path:
    """One file of 1 GiB: a hole, which takes no room on the disk and reads as zeros."""
    return _made_once(folder / "large-member", lambda path: _make_sparse(path, 1, MEMBER_BYTES))


def large_shard_folder(folder: Path, scale: int) -> Path:
    """Files of 4 GB in all, or *scale* times that; again holes."""
    return _made_once(
        folder / f"large-shard-{scale}", lambda path: _make_sparse(path, scale * SHARD_MEMBERS, SHARD_MEMBER_BYTES)
    )


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


def _write_parquet(path: Path, count: int) -> None:
    import pyarrow
    import pyarrow.parquet

    lines = rows(count)
    writer = None
    while some := [json.loads(line) for line in islice(lines, _REPEATED)]:
        table = pyarrow.Table.from_pylist(some)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_shard(path: Path, lines: Iterator[str]) -> None:
    import msgpack
    import webdataset

    with webdataset.TarWriter(str(path), encoder=False, mtime=0) as tar:
        for number, line in enumerate(lines):
            tar.write({"__key__": f"{number:010d}", "msgpack": msgpack.packb(json.loads(line))})


def _make_images(folder: Path) -> None:
    made = random.Random(_SEED)
    for number in range(IMAGES):
        label = number // _CLASS_IMAGES
        place = folder / f"class{label:02d}"
        place.mkdir(parents=True, exist_ok=True)
        size = made.randint(_SMALLEST, _LARGEST)
        (place / f"{number:05d}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + made.randbytes(size - 4))
        described = {"label": label, "width": 640, "height": 480, "caption": f"image {number}"}
        (place / f"{number:05d}.json").write_text(json.dumps(described))


def _link_images(folder: Path, images: Path) -> None:
    folder.mkdir()
    for label in range(SOME_IMAGES // _CLASS_IMAGES):
        name = f"class{label:02d}"
        (folder / name).symlink_to(images.absolute() / name)


def _make_files(folder: Path) -> None:
    for first in range(0, FILES // 2, _FOLDER_SAMPLES):
        place = folder / f"class{first // _FOLDER_SAMPLES:02d}"
        place.mkdir(parents=True)
        for number in range(first, first + _FOLDER_SAMPLES):
            for field in ("jpg", "json"):
                os.close(os.open(place / f"{number:07d}.{field}", os.O_CREAT | os.O_WRONLY, 0o644))


def _make_sized(folder: Path, size: int, count: int) -> None:
    made = random.Random(_SEED)
    for number in range(count):
        place = folder / f"{number // 1000:04d}"
        if number % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{number:07d}.bin").write_bytes(made.randbytes(size))


def _make_sparse(folder: Path, count: int, size: int) -> None:
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:03d}.bin"
        path.touch()
        os.truncate(path, size)


if __name__ == "__main__":
    sys.stdout.writelines(repeated_rows(int(sys.argv[1])))
