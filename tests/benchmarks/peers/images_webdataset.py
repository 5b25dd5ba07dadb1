"""A folder of images with JSON files to shards with webdataset: FOLDER FOLDER."""

import sys
from pathlib import Path

import webdataset

source, folder = Path(sys.argv[1]), sys.argv[2]
with webdataset.ShardWriter(f"{folder}/shard-%06d.tar", maxcount=10_000, maxsize=1 << 30, verbose=0) as sink:
    for image in sorted(source.glob("*/*.jpg")):
        key = image.relative_to(source).with_suffix("").as_posix()
        sink.write({"__key__": key, "jpg": image.read_bytes(), "json": image.with_suffix(".json").read_bytes()})
