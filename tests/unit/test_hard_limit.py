"""Shards for a store that takes none larger than so many bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from atdata_cli import open_source
from atdata_cli.errors import DataError
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.write import WriteResult, write
from atdata_cli.stores.local import LocalStore
from tests.e2e.conftest import packed

# webdataset leaves what it has read to the end for the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

LIMIT = 40_960


def write_rows(folder: Path, rows: list[dict[str, Any]], **options: Any) -> WriteResult:
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = WriteOptions(max_size=LIMIT, hard_limit=True, **options)
    return write(open_source(str(source)), LocalStore(str(folder)), "out", chosen)


@pytest.mark.parametrize("encoding", ["msgpack", "files"])
def test_rows_are_cut_by_their_bytes(tmp_path: Path, encoding: Any) -> None:
    # The first rows say nothing of the later ones.
    chance = random.Random(1)
    rows = [{"n": n, "text": "x" * (10 if n < 500 else chance.randrange(20_000))} for n in range(800)]
    result = write_rows(tmp_path, rows, encoding=encoding)
    sizes = [row.bytes for _, row in result.shards()]
    assert max(sizes) <= LIMIT
    assert sum(sizes) / len(sizes) > LIMIT / 2
    assert [row.samples for _, row in result.shards()] != [800]
    assert result.manifest.samples == 800
    assert result.manifest.fields["n" if encoding == "msgpack" else "json"]
    if encoding == "msgpack":
        assert packed(tmp_path / "out") == rows
        assert result.manifest.schema["properties"]["text"] == {"type": "string"}


def test_statistics_are_those_of_other_limits(tmp_path: Path) -> None:
    rows = [{"n": n, "text": "x" * (n * 37 % 5000)} for n in range(300)]
    hard = write_rows(tmp_path, rows).manifest
    soft = write(open_source(str(tmp_path / "rows.jsonl")), LocalStore(str(tmp_path)), "soft", WriteOptions()).manifest
    assert (hard.fields, hard.schema, hard.samples) == (soft.fields, soft.schema, soft.samples)


@pytest.mark.parametrize("encoding", ["msgpack", "files"])
def test_a_sample_that_is_too_large_is_named(tmp_path: Path, encoding: Any) -> None:
    rows = [{"text": "x"}, {"text": "y" * LIMIT}, {"text": "z"}]
    with pytest.raises(DataError, match=r"'0000000001' alone makes a shard of .* takes 40,960 at most"):
        write_rows(tmp_path, rows, encoding=encoding)
    assert not list((tmp_path / "out").glob("*"))


def test_even_shards_that_are_too_large(tmp_path: Path) -> None:
    rows = [{"text": "x" * 5000} for _ in range(20)]
    with pytest.raises(DataError, match="10 samples make a shard of"):
        write_rows(tmp_path, rows, shards=2)
    assert [row.samples for _, row in write_rows(tmp_path, rows, shards=4).shards()] == [5, 5, 5, 5]
