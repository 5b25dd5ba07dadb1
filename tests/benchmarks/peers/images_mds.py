"""A folder of images with JSON files to MosaicML's shards: FOLDER FOLDER."""

import sys
from pathlib import Path

from mosaicml import MDSWriter

source, folder = Path(sys.argv[1]), sys.argv[2]
with MDSWriter(out=folder, columns={"key": "str", "jpg": "bytes", "json": "bytes"}) as sink:
    for image in sorted(source.glob("*/*.jpg")):
        key = image.relative_to(source).with_suffix("").as_posix()
        sink.write({"key": key, "jpg": image.read_bytes(), "json": image.with_suffix(".json").read_bytes()})
