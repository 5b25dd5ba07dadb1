"""The global shuffle: every sample once, in an order that the seed and nothing else decides, in bounded memory."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.errors import UsageError
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.write import write_dataset
from atdata_cli.sources.base import Sample, content
from atdata_cli.sources.registry import ReadOptions, open_source
from atdata_cli.sources.shuffle import Ranks, ShuffledSamples, Sorter
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.local import LocalStore


@given(st.lists(st.tuples(st.binary(min_size=8, max_size=8), st.binary(max_size=300))), st.integers(1, 5000))
def test_sorted_in_any_memory(items: list[tuple[bytes, bytes]], memory: int) -> None:
    with Sorter(memory) as sorter:
        for rank, data in items:
            sorter.add(rank, (rank, data))
        found = list(sorter.items())
    assert [rank for rank, _ in found] == sorted(rank for rank, _ in items)
    assert sorted(found) == sorted(items)


def test_ranks_do_not_change() -> None:
    ranks = Ranks(7)
    assert ranks.of(0).hex() == "245dc87dbd1a2286"
    assert sorted(range(10), key=ranks.of) == [5, 6, 0, 2, 7, 1, 9, 8, 3, 4]


def make_tar(path: Path, count: int = 60) -> Path:
    with tarfile.open(path, "w") as archive:
        for n in range(count):
            for field, size in (("bin", 300_000 if n % 20 == 0 else 10), ("txt", 3)):
                info = tarfile.TarInfo(f"{n:03d}.{field}")
                info.size = size
                archive.addfile(info, io.BytesIO(random.Random(n).randbytes(size)))
    return path


def shuffled(name: Path, seed: int = 1) -> list[tuple[str, dict[str, bytes]]]:
    source = ShuffledSamples(open_source([str(name)], StoreFiles(), ReadOptions()), seed)  # type: ignore[arg-type]
    return [(sample.key, contents(sample)) for sample in source.samples()]


def contents(sample: Sample) -> dict[str, bytes]:
    return {name: content(value) for name, value in sorted(sample.fields.items())}


def test_wherever_samples_come_from(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "s.tar")
    plain = shuffled(tar)
    keys = [key for key, _ in plain]
    assert keys != sorted(keys)
    assert sorted(keys) == [f"{n:03d}" for n in range(60)]
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    assert shuffled(tmp_path / "s.tar.gz") == plain
    with tarfile.open(tar) as archive:
        archive.extractall(tmp_path / "folder", filter="data")
    assert shuffled(tmp_path / "folder") == plain
    assert shuffled(tar, seed=2) != plain


def members(shards: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Name and content of all members, in order."""
    found = []
    for path in shards:
        with tarfile.open(path) as archive:
            found += [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    return found


def test_rows_keep_their_keys(tmp_path: Path) -> None:
    rows = [{"n": n} for n in range(2500)]
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one.write_text("".join(json.dumps(row) + "\n" for row in rows[:1000]))
    two.write_text("".join(json.dumps(row) + "\n" for row in rows[1000:]))
    results = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        source = open_source([str(one), str(two)], StoreFiles(), ReadOptions())
        write_dataset(source, LocalStore(tmp_path), name, max_count=1000, shuffle=True, seed=seed)
        shards = sorted((tmp_path / name).glob("*.tar"))
        results[name] = [path.read_bytes() for path in shards], [name[:10] for name, _ in members(shards)]
    assert results["a"] == results["b"] != results["c"]
    keys = results["a"][1]
    assert len(results["a"][0]) == 3
    assert sorted(keys) == [f"{n:010d}" for n in range(2500)]
    # A shard has rows from everywhere, not from the neighbourhood.
    assert 800 < sum(map(int, keys[:100])) / 100 < 1700


def test_embedded_files_are_found_beside_their_row(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for n in range(20):
            (tmp_path / folder / f"{n}.txt").write_text(f"{folder}{n}")
        lines = "".join(json.dumps({"f": f"{n}.txt", "is": f"{folder}{n}"}) + "\n" for n in range(20))
        (tmp_path / folder / "rows.jsonl").write_text(lines)
    source = open_source([str(tmp_path / f / "rows.jsonl") for f in "ab"], StoreFiles(), ReadOptions())
    write_dataset(source, LocalStore(tmp_path), "out", embed=("f",), shuffle=True)
    found = dict(members(sorted((tmp_path / "out").glob("*.tar"))))
    assert len(found) == 80
    texts = {name[:10]: data.decode() for name, data in found.items() if name.endswith("txt")}
    assert {name[:10]: json.loads(data)["is"] for name, data in found.items() if name.endswith("json")} == texts


def test_a_seed_alone_is_a_slip() -> None:
    with pytest.raises(UsageError, match="--seed"):
        WriteOptions(seed=3).check()
    assert WriteOptions(shuffle=True, seed=0).identity() == {"shuffle": True}
    assert WriteOptions(shuffle=True, seed=4).identity() == {"shuffle": True, "seed": 4}
