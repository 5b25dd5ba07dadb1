"""Look at datasets as training code would: totals from the manifest, the first sample through webdataset."""

import json
import os
import sys
from pathlib import Path

os.environ["WDS_SECURE"] = "1"

import msgpack
import webdataset


def glance(folder: Path) -> None:
    """Print what one dataset holds."""
    manifest = json.loads((folder / "manifest.json").read_text())
    shards = manifest["shards"]
    print(f"{folder}: {manifest['samples']} samples in {len(shards)} shards, {manifest['bytes']} bytes")
    for name, field in manifest["fields"].items():
        print(f"  {name:<16} {field['kind']}")
    urls = [str(folder / shard["name"]) for shard in shards]
    samples = 0
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        if not samples:
            print("  first sample:", describe(sample))
        samples += 1
    assert samples == manifest["samples"], f"webdataset read {samples} samples"
    print(f"  webdataset reads all {samples}")


def describe(sample: dict) -> dict:
    """The sample, with long bytes as their length."""
    if "msgpack" in sample:
        return msgpack.unpackb(sample["msgpack"])
    return {
        name: value if not isinstance(value, bytes) or len(value) < 20 else f"{len(value)} bytes"
        for name, value in sample.items()
        if not name.startswith("__") or name == "__key__"
    }


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        glance(Path(argument))
