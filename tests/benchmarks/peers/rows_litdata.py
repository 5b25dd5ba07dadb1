"""JSON lines to litData's chunks, with a process a core: ROWS.jsonl FOLDER."""

import os
import sys

import orjson
from litdata import optimize

_PART = 4 << 20


def parts(path):
    """Byte ranges of whole lines, so that every process reads its own."""
    begin, size = 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while begin < size:
            file.seek(min(begin + _PART, size))
            file.readline()
            yield path, begin, file.tell()
            begin = file.tell()


def rows(part):
    """The rows of one range."""
    path, begin, end = part
    with open(path, "rb") as file:
        file.seek(begin)
        yield from map(orjson.loads, file.read(end - begin).splitlines())


if __name__ == "__main__":
    source, folder = sys.argv[1:]
    optimize(rows, list(parts(source)), f"{folder}/rows", chunk_bytes="64MB", num_workers=os.cpu_count(), verbose=False)
