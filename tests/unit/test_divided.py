"""Work of several processes is that of one: every object, the manifest, the rejects, the errors."""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atdata_cli.errors import AtdataError, DataError
from atdata_cli.refs import parse
from atdata_cli.samples.check import RowSchema
from atdata_cli.shards.dividing import Workers
from atdata_cli.shards.feed import Rejects
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.reader import locate
from atdata_cli.shards.verify import verify
from atdata_cli.shards.workers import ProcessExecutor
from atdata_cli.shards.write import write
from atdata_cli.sources.base import Reject
from atdata_cli.sources.registry import ReadOptions, open_source
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.local import LocalStore

ROWS = 700


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Three processes for all tests: they take tasks of any run."""
    executor = ProcessExecutor(3, preload="atdata_cli.shards.making")
    yield executor
    executor.shutdown()


class Shared(Executor):
    """Processes that outlive the run."""

    def __init__(self, processes: Executor) -> None:
        self.submit = processes.submit  # type: ignore[method-assign]
        self.shutdown = lambda *args, **options: None  # type: ignore[assignment]


class Listed:
    """A list of rejects that a run fills."""

    def __init__(self) -> None:
        self.rejects: list[Reject] = []

    def write(self, reject: Reject) -> None:
        self.rejects.append(reject)

    def restart(self) -> None:
        self.rejects.clear()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcome(
    folder: Path, sources: Sequence[Path], reading: ReadOptions, writing: WriteOptions, workers: Workers | None
) -> tuple[Any, ...]:
    """All that a run makes and says."""
    listed = Listed()
    rejects = Rejects(skip=writing.on_error == "skip", limit=writing.max_errors, sink=listed)
    source = open_source([str(path) for path in sources], StoreFiles(), reading)
    try:
        result = write(source, LocalStore(folder), "out", writing, rejects=rejects, workers=workers)
        said: Any = (result.limit, list(result.warnings), result.tar_bytes)
    except AtdataError as error:
        said = (type(error), error.message, error.url, error.hint)
    return tree(folder), listed.rejects, said


def random_rows(count: int = ROWS) -> list[dict[str, Any]]:
    chance = random.Random(5)
    return [
        {"n": n, "text": "é" * chance.randrange(40), "x": chance.random(), "who": chance.choice("abc"), "l": [n, 1]}
        for n in range(count)
    ]


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]], **bad: str) -> Path:
    lines = [json.dumps(row) for row in rows]
    for number, text in bad.items():
        lines[int(number[1:])] = text
    path.write_text("\n".join(lines))
    return path


def make_rows(folder: Path) -> list[Path]:
    """Two files whose records do not end with shards; blank lines, a byte order mark, no line feed at the end."""
    rows = random_rows()
    text = "\n\n".join(json.dumps(row) for row in rows[:333])
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n \n")
    return [folder / "a.jsonl", jsonl(folder / "b.jsonl", rows[333:])]


def make_few(folder: Path) -> list[Path]:
    return [jsonl(folder / "few.jsonl", random_rows(30))]


def make_keyed(folder: Path) -> list[Path]:
    rows = [{"__key__": f"{999 - n:03d}", **row} for n, row in enumerate(random_rows())]
    return [jsonl(folder / "k.jsonl", rows)]


def make_doubles(folder: Path) -> list[Path]:
    rows = [{"__key__": str(n % 600), **row} for n, row in enumerate(random_rows())]
    return [jsonl(folder / "d.jsonl", rows)]


def make_bad(folder: Path) -> list[Path]:
    """Bad lines, among them all of one shard's."""
    bad = {f"_{n}": "nonsense" for n in (3, 99, *range(200, 300), 699)}
    return [jsonl(folder / "bad.jsonl", random_rows(), _4='{"n": 99999999999999999999}', **bad)]


def make_odd_lines(folder: Path) -> list[Path]:
    """As many objects as lines, but two on one line and one on two, in the middle of several blocks."""
    rows = [{**row, "text": "x" * 3000} for row in random_rows()]
    return [jsonl(folder / "odd.jsonl", rows, _400='{"n": 1}{"n": 2}', _401='{"n":\n4}')]


def make_new_fields(folder: Path) -> list[Path]:
    rows = random_rows()
    rows[650]["late"] = 1
    rows[651]["later"] = {"a": 1}
    # More than the first rows that are looked at, in bytes.
    rows[0]["text"] = "x" * (17 << 20)
    return [jsonl(folder / "new.jsonl", rows)]


def make_csv(folder: Path, *, quoted: bool = False, multiline: bool = False) -> list[Path]:
    path = folder / "t.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL)
        writer.writerow(["n", "text", "x"])
        for n, row in enumerate(random_rows()):
            text = 'two\n"lines"' if multiline and n == 400 else row["text"]
            writer.writerow([n if n != 600 else "seven", text, row["x"]])
            if n == 500:
                file.write("\r\n1,2\r\n")
    return [path]


def make_parquet(folder: Path) -> list[Path]:
    rows = random_rows()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.slice(0, 420), folder / "a.parquet", row_group_size=130)
    pq.write_table(table.slice(420), folder / "b.parquet", row_group_size=1000)
    return [folder / "a.parquet", folder / "b.parquet"]


def make_photos(folder: Path) -> list[Path]:
    chance = random.Random(7)
    (folder / "p").mkdir()
    for n in range(300):
        (folder / "p" / f"{n:03d}.jpg").write_bytes(chance.randbytes(chance.randrange(4000)))
        if n != 150:
            (folder / "p" / f"{n:03d}.json").write_text(json.dumps({"n": n, "who": "abc"[n % 3]}))
    (folder / "p" / "nofield").write_text("")
    return [folder / "p"]


def make_tars(folder: Path) -> list[Path]:
    chance = random.Random(8)
    names = []
    for part in range(3):
        name = folder / f"{part}.tar"
        names.append(name)
        with tarfile.open(name, "w") as archive:
            for n in range(70):
                for field in ("txt", "bin", "cls")[: 2 + n % 2]:
                    info = tarfile.TarInfo(
                        f"{part}/{n if n != 60 else 59:02d}.{field}" if n != 33 else f"nofield{field}"
                    )
                    info.size = 400_000 if n == 20 else chance.randrange(3000)
                    archive.addfile(info, io.BytesIO(chance.randbytes(info.size)))
    return names


def make_packed_tars(folder: Path, *, odd: bool = False) -> list[Path]:
    """Samples of one msgpack map each: small ones, large ones, and maybe one that is no map."""
    rows = random_rows(150)
    rows[70]["text"] = "x" * 300_000
    names = []
    for part in range(2):
        name = folder / f"{part}.tar"
        names.append(name)
        with tarfile.open(name, "w") as archive:
            for n, row in enumerate(rows[part * 75 : part * 75 + 75]):
                data = msgpack.packb([1] if odd and (part, n) == (1, 40) else row)
                info = tarfile.TarInfo(f"{part}{n:02d}.msgpack")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return names


def make_packed_files(folder: Path) -> list[Path]:
    (folder / "p").mkdir()
    for n, row in enumerate(random_rows(100)):
        (folder / "p" / f"{n:03d}.msgpack").write_bytes(msgpack.packb(row))
    return [folder / "p"]


SKIP: dict[str, Any] = {"on_error": "skip"}
SPLIT: dict[str, Any] = {"split": "train=0.7,val=0.3"}
SHUFFLE: dict[str, Any] = {"shuffle": True, "seed": 3}
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "rows": (make_rows, {}, {"max_count": 100}),
    "rows one a shard": (make_few, {}, {"max_count": 1}),
    "rows by size": (make_rows, {}, {"max_size": 30_000}),
    "rows evenly": (make_rows, {}, {"shards": 9}),
    "rows, a multiple": (make_rows, {}, {"shards_multiple_of": 4, "max_count": 60}),
    "rows as files": (make_rows, {}, {"max_count": 100, "encoding": "files"}),
    "rows in splits": (make_rows, {}, {"max_count": 100, **SPLIT}),
    "rows gzipped": (make_rows, {}, {"max_count": 99, "compress": "gz"}),
    "rows with template": (make_rows, {}, {"max_count": 100, "key": "{who}{n}"}),
    "some fields": (make_rows, {"fields": ("x", "n")}, {"max_count": 100, "fields": ("x", "n")}),
    "schema": (
        make_rows,
        {},
        {
            "max_count": 100,
            "schema": {"type": "object", "properties": {"n": {"type": "string"}}, "additionalProperties": False},
            **SKIP,
        },
    ),
    "own keys": (make_keyed, {}, {"max_count": 100}),
    "double keys": (make_doubles, {}, {"max_count": 100}),
    "double keys skipped": (make_doubles, {}, {"max_count": 100, **SKIP}),
    "bad rows": (make_bad, {}, {"max_count": 100}),
    "bad rows skipped": (make_bad, {}, {"max_count": 100, **SKIP}),
    "bad rows skipped, evenly": (make_bad, {}, {"shards": 7, **SKIP}),
    "odd lines": (make_odd_lines, {}, {"max_count": 50}),
    "odd lines skipped": (make_odd_lines, {}, {"max_count": 50, **SKIP}),
    "too many bad rows": (make_bad, {}, {"max_count": 100, "max_errors": 20, **SKIP}),
    "new fields": (make_new_fields, {}, {"max_count": 100}),
    "csv": (make_csv, {}, {"max_count": 100, **SKIP}),
    "quoted csv": (lambda folder: make_csv(folder, quoted=True), {}, {"max_count": 100, **SKIP}),
    "csv with long records": (lambda folder: make_csv(folder, multiline=True), {}, {"max_count": 100, **SKIP}),
    "text csv": (make_csv, {"infer": False}, {"max_count": 100, **SKIP}),
    "parquet": (make_parquet, {}, {"max_count": 100}),
    "parquet, large shards": (make_parquet, {}, {"max_count": 300}),
    "photos": (make_photos, {"include": ("*.*",)}, {"max_count": 40}),
    "photos by size": (make_photos, {"include": ("*.*",)}, {"max_size": 100_000}),
    "photos evenly": (make_photos, {"include": ("*.*",)}, {"shards": 7}),
    "photos in splits": (make_photos, {"include": ("*.*",)}, {"max_count": 40, **SPLIT}),
    "photos with a bad name": (make_photos, {}, {"max_count": 40}),
    "photos with a bad name skipped": (make_photos, {}, {"max_count": 40, **SKIP}),
    "packed photos": (make_photos, {"include": ("*.*",)}, {"max_count": 40, "encoding": "msgpack"}),
    "some of the photos": (make_photos, {}, {"max_count": 40, "fields": ("json",), **SKIP}),
    "shuffled photos": (make_photos, {"include": ("*.*",)}, {"max_count": 40, **SHUFFLE}),
    "shuffled photos in splits": (make_photos, {"include": ("*.*",)}, {"max_size": 90_000, **SHUFFLE, **SPLIT}),
    "shuffled rows": (make_rows, {}, {"max_count": 100, **SHUFFLE}),
    "shuffled tars": (make_tars, {}, {"max_count": 40, **SHUFFLE, **SKIP}),
    "tars": (make_tars, {}, {"max_count": 40}),
    "packed tars": (make_packed_tars, {}, {"max_count": 40}),
    "packed tars, one of which is not": (lambda folder: make_packed_tars(folder, odd=True), {}, {"max_count": 40}),
    "shuffled packed tars": (make_packed_tars, {}, {"max_count": 40, **SHUFFLE}),
    "packed tars by size in splits": (make_packed_tars, {}, {"max_size": 400_000, **SPLIT}),
    "packed files": (make_packed_files, {}, {"max_count": 40}),
    "tars skipping": (make_tars, {}, {"max_count": 40, **SKIP}),
    "tars by size in splits": (make_tars, {}, {"max_size": 50_000, **SPLIT, **SKIP}),
}


THREE = {"rows", "photos in splits", "double keys skipped"}


@pytest.mark.parametrize("case", CASES)
def test_the_same_whoever_does_it(case: str, tmp_path: Path, processes: Executor) -> None:
    make, reading, writing = CASES[case]
    given = tmp_path / "given"
    given.mkdir()
    sources = make(given)
    if "schema" in writing:
        writing = {**writing, "schema": RowSchema.parse(json.dumps(writing["schema"]).encode(), url="s").document}
    options = WriteOptions(name="d", **writing)
    alone = outcome(tmp_path / "1", sources, ReadOptions(**reading), options, None)
    for jobs in (2, 3) if case in THREE else (2,):
        workers = Workers(jobs, worth=1, start=lambda jobs: Shared(processes), smallest=1)
        together = outcome(tmp_path / str(jobs), sources, ReadOptions(**reading), options, workers)
        assert together[1:] == alone[1:]
        assert together[0].keys() == alone[0].keys()
        assert together[0] == alone[0]


def test_a_shard_of_bad_records_alone_has_no_number(tmp_path: Path) -> None:
    options = WriteOptions(name="d", max_count=100, **SKIP)
    outcome(tmp_path, make_bad(tmp_path), ReadOptions(), options, None)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert shards == [f"shard-{number:06d}.tar" for number in (0, 1, 3, 4, 5, 6)]
    located = locate(parse(str(tmp_path / "out")), StoreFiles())
    assert verify(located, StoreFiles(), jobs=1).problems == ()


@pytest.mark.parametrize(("size", "started"), [(40_000, False), (4_000, True)])
def test_where_cores_are_few_large_files_take_one_process(size: int, started: bool, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.bin").write_bytes(bytes(size))
    starts: list[int] = []

    def start(jobs: int) -> Executor:
        starts.append(jobs)
        return ThreadPoolExecutor(jobs)

    for few in (True, False):
        source = open_source([str(folder)], StoreFiles(), ReadOptions())
        workers = Workers(2, worth=1, start=start, smallest=1, few=few)
        write(source, LocalStore(tmp_path), f"out-{few}", WriteOptions(name="d", max_count=10), workers=workers)
        assert starts == ([2] if started or not few else [])
        starts.clear()


def test_nothing_stays_of_splits_that_failed(tmp_path: Path, processes: Executor) -> None:
    sources = make_photos(tmp_path)
    source = open_source([str(path) for path in sources], StoreFiles(), ReadOptions(include=("*.*",)))
    (tmp_path / "p" / "299.jpg").write_bytes(b"shorter, or longer, than it was")
    options = WriteOptions(name="d", max_count=20, **SPLIT)
    workers = Workers(2, worth=1, start=lambda jobs: Shared(processes), smallest=1)
    with pytest.raises(DataError, match="changed while it was read"):
        write(source, LocalStore(tmp_path), "out", options, workers=workers)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [make_packed_tars, make_packed_files])
def test_packed_samples_keep_their_schema(make: Any, tmp_path: Path) -> None:
    """Whatever they come from and however large they are: what is in them stands in the manifest."""
    made, _, _ = outcome(tmp_path, make(tmp_path), ReadOptions(), WriteOptions(name="d"), None)
    manifest = json.loads(made["out/manifest.json"])
    assert manifest["encoding"] == "msgpack"
    assert manifest["fields"].keys() == {"n", "text", "x", "who", "l"}
