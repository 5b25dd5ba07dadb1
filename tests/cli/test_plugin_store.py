"""A store from another package, with no more than the protocol's three methods."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest

from tests.cli.conftest import rows

PLUGIN = '''
import json, os

class ThreeMethods:
    """Keeps samples as JSON lines, which no tool of ours knows."""

    def __init__(self, root):
        self.root = root

    def write_shards(self, ds, *, prefix, **kwargs):
        os.makedirs(self.root, exist_ok=True)
        path = os.path.join(self.root, prefix + ".jsonl")
        with open(path, "w") as out:
            print(json.dumps(kwargs), file=out)
            for sample in ds:
                key = sample.pop("__key__")
                print(json.dumps({"__key__": key} | {name: value.hex() for name, value in sample.items()}), file=out)
        return ["three:" + path]

    def read_url(self, url):
        return url

    def supports_streaming(self):
        return False


def make(url, options):
    _, _, path = url.partition("://")
    folder, _, name = path.rpartition("/")
    return ThreeMethods(folder), name
'''


@pytest.fixture
def plugin_env(tmp_path: Path) -> dict[str, str]:
    """A folder with the package and its metadata, as pip would have installed it."""
    site = tmp_path / "site"
    info = site / "three_methods-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "three_methods.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: three-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[atdata_cli.stores]\nthree = three_methods:make\n")
    return {"PYTHONPATH": str(site)}


def test_rows_and_folders_reach_it_as_samples(cli, plugin_env, rows_file, photos, tmp_path):
    ran = cli("write", "rows.jsonl", f"three://{tmp_path}/kept/rows", "--max-count", "7", env=plugin_env)
    assert ran.code == 0, ran.err
    assert ran.lines == [f"three:{tmp_path}/kept/rows.jsonl"]
    assert "no manifest" in ran.err
    options, *samples = map(json.loads, (tmp_path / "kept" / "rows.jsonl").read_text().splitlines())
    assert options == {"maxcount": 7}
    assert [msgpack.unpackb(bytes.fromhex(sample["msgpack"])) for sample in samples] == rows(2500)
    assert cli("write", "photos", f"three://{tmp_path}/kept/photos", env=plugin_env).code == 0
    _, first, *_ = map(json.loads, (tmp_path / "kept" / "photos.jsonl").read_text().splitlines())
    assert bytes.fromhex(first["json"]) == (photos / "cat" / "00.json").read_bytes()


def test_without_the_package_the_scheme_is_unknown(cli, rows_file, tmp_path):
    cli("write", "rows.jsonl", f"three://{tmp_path}/kept/rows").failed(2, "three")
