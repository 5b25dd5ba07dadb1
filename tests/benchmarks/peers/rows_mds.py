"""JSON lines to MosaicML's shards, one typed column a field: ROWS.jsonl FOLDER."""

import sys

import orjson
from mosaicml import MDSWriter

source, folder = sys.argv[1:]
columns = {"id": "int", "text": "str", "label": "str", "score": "float64", "tags": "json"}
with open(source, "rb") as lines, MDSWriter(out=folder, columns=columns) as sink:
    for line in lines:
        sink.write(orjson.loads(line))
