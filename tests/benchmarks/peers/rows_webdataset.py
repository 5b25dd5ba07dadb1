"""JSON lines to msgpack shards with webdataset: ROWS.jsonl FOLDER."""

import json
import sys

import msgpack
import webdataset

source, folder = sys.argv[1:]
with open(source) as lines, webdataset.ShardWriter(f"{folder}/shard-%06d.tar", maxcount=10_000, verbose=0) as sink:
    for number, line in enumerate(lines):
        sink.write({"__key__": f"{number:010d}", "msgpack": msgpack.packb(json.loads(line))})
