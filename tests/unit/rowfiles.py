"""A ``Files`` over local paths and pipes, and shorthands, for the tests of row sources."""

import os
from pathlib import Path

from atdata_cli.sources.base import FileInfo, InputFile


class LocalFiles:
    def __init__(self, stdin=None):
        self.stdin = stdin

    def info(self, url):
        return FileInfo(url, "file", os.path.getsize(url)) if os.path.exists(url) else None

    def walk(self, url):
        return iter(())

    def hidden(self):
        return 0

    def glob(self, pattern):
        return []

    def open(self, url):
        return self.stdin if url == "-" else open(url, "rb")


STDIN = InputFile("-", "-", None)


def given(path: Path, content: bytes) -> InputFile:
    """Write a file; as an input."""
    path.write_bytes(content)
    return as_input(path)


def as_input(path: Path) -> InputFile:
    return InputFile(path.name, str(path), path.stat().st_size)


def piped(content: bytes):
    """A pipe that a thread feeds; not seekable, like standard input."""
    import threading

    reader, writer = os.pipe()

    def feed():
        with open(writer, "wb", buffering=0) as target:
            try:
                for start in range(0, len(content), 50_001):
                    target.write(content[start : start + 50_001])
            except BrokenPipeError:
                pass

    threading.Thread(target=feed, daemon=True).start()
    return open(reader, "rb")


def rows_of(source):
    return [row for batch in source.batches() for row in batch.rows]


def rejects_of(source):
    return [reject for batch in source.batches() for reject in batch.rejects]


def numbers_of(source):
    """Global record numbers of the good rows, as the job counts them."""
    before, numbers = 0, []
    for batch in source.batches():
        assert len(batch.rows) == len(batch.lines) == len(batch.offsets)
        assert batch.records == len(batch.rows) + len(batch.rejects)
        numbers += [before + offset for offset in batch.offsets]
        before += batch.records
    return numbers
