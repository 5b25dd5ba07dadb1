from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atdata_cli.sources.base import InputFile, Reject, Row, RowBatch, RowSource
from atdata_cli.sources.files import FolderSource
from atdata_cli.sources.join import JoinSource
from tests.unit.local_files import LocalFiles


class Rows(RowSource):
    def __init__(self, *rows: Row) -> None:
        self.rows = list(rows)
        self.inputs = [InputFile("labels.csv", "labels.csv", 10)]

    def count(self) -> int | None:
        return len(self.rows)

    def batches(self) -> Iterator[RowBatch]:
        for index, row in enumerate(self.rows):
            rejects = [Reject("labels.csv:99", "bad line")] if index == 0 else []
            yield RowBatch(self.inputs[0], [row], [index + 2], [0], 1, rejects)


def joined(folder: Path, names: list[str], *rows: Row) -> JoinSource:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return JoinSource(FolderSource(LocalFiles(), [str(folder)]), Rows(*rows), "file")


def columns(source: JoinSource) -> dict[str, Any]:
    found = {}
    for sample in source.samples():
        value = sample.fields.get("json")
        found[sample.key] = value if value is None else json.loads(value)  # type: ignore[arg-type]
    return found


def test_rows_find_their_file_by_path_basename_and_key(tmp_path: Path) -> None:
    source = joined(
        tmp_path,
        ["x/a.jpg", "y/a.jpg", "y/b.jpg", "c.jpg", "7.jpg"],
        {"file": "x/a.jpg", "label": 1, "a": None},
        {"file": "./y/a.jpg", "label": 2},
        {"label": 3, "file": "somewhere/else/b.jpg"},
        {"file": "c", "label": 4},
        {"file": 7, "label": "ü"},
    )
    assert columns(source) == {
        "x/a": {"label": 1, "a": None},
        "y/a": {"label": 2},
        "y/b": {"label": 3},
        "c": {"label": 4},
        "7": {"label": "ü"},
    }
    samples = {sample.key: sample for sample in source.samples()}
    assert samples["x/a"].fields["json"] == b'{"label":1,"a":null}'
    assert list(samples["x/a"].fields) == ["jpg", "json"]
    assert samples["7"].extra == {"file": 7, "label": "ü"}
    assert samples["y/b"].extra == {"file": "somewhere/else/b.jpg", "label": 3}
    assert [problem.where for problem in source.preflight().problems] == ["labels.csv:99"]
    assert source.preflight().warnings == []
    assert source.count() == 5
    assert [item.name for item in source.inputs][-1] == "labels.csv"
    assert source.inputs[len(source.inputs) - 1] == source.inputs[-1]
    assert len(source.inputs) == 6


def test_rows_that_fit_no_sample_are_problems(tmp_path: Path) -> None:
    source = joined(
        tmp_path,
        ["x/a.jpg", "y/a.jpg", "b.jpg", "b.txt", "c.jpg"],
        {"file": "b.jpg", "n": 1},
        {"file": "a.jpg", "n": 2},
        {"file": "none.jpg", "n": 3},
        {"file": "b.txt", "n": 4},
        {"file": None, "n": 5},
        {"n": 6},
        {"file": 1.5, "n": 7},
        {"file": "c.jpg", "n": b"bytes"},
        {"file": "b.jpg", "n": 9},
    )
    found = {problem.where: problem.reason for problem in source.preflight().problems}
    del found["labels.csv:99"]
    assert set(found) == {f"labels.csv:{line}" for line in range(3, 11)}
    assert "several files" in found["labels.csv:3"]
    assert "no file" in found["labels.csv:4"]
    assert "labels.csv:2" in found["labels.csv:5"]
    assert "null or missing" in found["labels.csv:6"]
    assert "float" in found["labels.csv:8"]
    assert "JSON" in found["labels.csv:9"]
    assert columns(source) == {"b": {"n": 1}, "c": None, "x/a": None, "y/a": None}
    assert any("3 of 4 samples have no row, such as c, x/a, y/a" in line for line in source.preflight().warnings)


def test_a_sample_with_a_json_of_its_own_is_a_conflict(tmp_path: Path) -> None:
    source = joined(tmp_path, ["a.jpg", "a.json", "b.jpg"], {"file": "a.jpg", "n": 1}, {"file": "b.jpg", "n": 2})
    found = {problem.where: problem.reason for problem in source.preflight().problems}
    assert set(found) == {str(tmp_path / "a.json"), "labels.csv:99"}
    assert "--exclude '*.json'" in found[str(tmp_path / "a.json")]
    assert columns(source) == {"b": {"n": 2}}
    assert source.count() == 1
