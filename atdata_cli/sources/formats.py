"""What a file's name says of its format, and which class reads each row format. Cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

__all__ = ["FORMATS", "RowFormat", "format_of", "is_tar"]

_COMPRESSED = ("", ".gz", ".zst", ".bz2", ".xz")
_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A row format.

    Attributes
    ----------
    source : ``module:Class`` of its ``RowSource``, built as ``Class(files, inputs, ...)``.
    endings : what its files' names end in, in lower case.
    """

    source: str
    endings: tuple[str, ...]


def _text(*endings: str) -> tuple[str, ...]:
    return tuple(ending + packed for ending in endings for packed in _COMPRESSED)


FORMATS: dict[str, RowFormat] = {
    "jsonl": RowFormat("atdata_cli.sources.jsonl:JsonlSource", _text(".jsonl", ".ndjson")),
    "csv": RowFormat("atdata_cli.sources.csvrows:CsvSource", _text(".csv")),
    "tsv": RowFormat("atdata_cli.sources.csvrows:TsvSource", _text(".tsv")),
    "parquet": RowFormat("atdata_cli.sources.arrow:ParquetSource", (".parquet", ".pq")),
    "arrow": RowFormat("atdata_cli.sources.arrow:ArrowSource", _text(".arrow", ".arrows", ".feather")),
    "msgpack": RowFormat("atdata_cli.sources.msgpackrows:MsgpackSource", _text(".msgpack")),
}


def format_of(name: str) -> str | None:
    """The row format that a file's name tells, or None."""
    # Two extensions decide, of which a folder of a million files has few.
    return _format_of(".".join(name.lower().rsplit(".", 2)[1:]))


@lru_cache(maxsize=1024)
def _format_of(extensions: str) -> str | None:
    ending = "." + extensions
    return next((key for key, row_format in FORMATS.items() if ending.endswith(row_format.endings)), None)


def is_tar(name: str) -> bool:
    """Whether a file's name is that of a tar, plain or compressed."""
    return name.lower().endswith(_TAR_ENDINGS)
