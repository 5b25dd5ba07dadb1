"""JSON lines to msgpack shards with atdata's LocalDiskStore: ROWS.jsonl FOLDER."""

import json
import sys

import atdata
from atdata.stores import LocalDiskStore

source, folder = sys.argv[1:]


@atdata.packable
class Row:
    """One row, typed, as the library wants it."""

    id: int
    text: str
    label: str
    score: float
    tags: list[int]


class Rows:
    """As much of ``atdata.Dataset`` as a store asks for."""

    def ordered(self, batch_size=None):
        """All samples, in order."""
        with open(source) as lines:
            for line in lines:
                yield Row(**json.loads(line))


LocalDiskStore(folder).write_shards(Rows(), prefix="rows", maxcount=10_000, verbose=0)
