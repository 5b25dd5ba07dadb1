"""Manifests come from others: one that is damaged or lies is refused, and never leads out of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from atdata_cli.errors import IntegrityError
from atdata_cli.shards.manifest import Manifest, ShardRow, SplitRow

ROW = ShardRow("shard-000000.tar", 1, 10240, "0" * 64, "a", "a")
SPLIT = SplitRow("train/manifest.json", "0" * 64, 1, 10240, 5, 1)
PLAIN = Manifest("d", 1, 10240, 5, "files", "job", (ROW,))
ROOT = Manifest("d", 1, 10240, 5, "files", "job", splits={"train": SPLIT})


@pytest.mark.parametrize("manifest", [PLAIN, ROOT])
def test_what_is_written_is_read(manifest: Manifest) -> None:
    assert Manifest.loads(manifest.dumps(), url="") == manifest


@pytest.mark.parametrize("wrong", [None, "1", -1, 1.5, True, [], {}])
@pytest.mark.parametrize(
    ("manifest", "change"),
    [
        (PLAIN, lambda document, wrong: document.update(samples=wrong)),
        (PLAIN, lambda document, wrong: document.update(bytes=wrong)),
        (PLAIN, lambda document, wrong: document["shards"][0].update(samples=wrong)),
        (PLAIN, lambda document, wrong: document["shards"][0].update(bytes=wrong)),
        (PLAIN, lambda document, wrong: document["shards"].append(wrong)),
        (ROOT, lambda document, wrong: document["splits"]["train"].update(shards=wrong)),
        (ROOT, lambda document, wrong: document["splits"].update(val=wrong)),
        (ROOT, lambda document, wrong: document.update(splits=[wrong])),
    ],
)
def test_numbers_that_are_none(manifest: Manifest, change: Callable[[Any, Any], None], wrong: Any) -> None:
    document = json.loads(manifest.dumps())
    change(document, wrong)
    with pytest.raises(IntegrityError, match="damaged"):
        Manifest.loads(json.dumps(document).encode(), url="m")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "..", ".hidden", "a\\b"])
def test_names_that_lead_elsewhere(name: str) -> None:
    document = json.loads(ROOT.dumps())
    document["splits"] = {name: document["splits"]["train"]}
    with pytest.raises(IntegrityError, match="split's name"):
        Manifest.loads(json.dumps(document).encode(), url="m")
    document = json.loads(PLAIN.dumps())
    document["shards"][0]["name"] = name
    with pytest.raises(IntegrityError, match="shard name"):
        Manifest.loads(json.dumps(document).encode(), url="m")
