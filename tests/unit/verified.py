"""Small datasets to damage, and what verifying them says."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack

from atdata_cli.refs import parse
from atdata_cli.samples.schema import MemberStats, member_schema
from atdata_cli.shards.manifest import MANIFEST, Manifest, ShardRow
from atdata_cli.shards.reader import locate
from atdata_cli.shards.verify import VerifyReport, verify
from atdata_cli.stores.inputs import StoreFiles

Found = tuple[str, str, str | None, int | None]
Members = Sequence[tuple[str, bytes]]

JPG, JSON = bytes(range(256)) * 3, b'{"label": "cat"}'
# Of samples made by `samples`: a header and two blocks, a header and one block.
STRIDE = 512 + 1024 + 512 + 512


def samples(*numbers: int) -> list[tuple[str, bytes]]:
    return [member for number in numbers for member in ((f"{number:04d}.jpg", JPG), (f"{number:04d}.json", JSON))]


def tar(members: Iterable[tuple[str, bytes]], layout: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            archive.addfile(info, io.BytesIO(payload))
    return out.getvalue()


def packed(rows: Iterable[tuple[str, Any]]) -> list[tuple[str, bytes]]:
    return [(f"{key}.msgpack", value if isinstance(value, bytes) else msgpack.packb(value)) for key, value in rows]


def keys(members: Members) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name, _ in members))


def shard_row(name: str, members: Members, data: bytes) -> ShardRow:
    found = keys(members)
    ends = (found[0], found[-1]) if found else ("", "")
    return ShardRow(name, len(found), len(data), hashlib.sha256(data).hexdigest(), *ends)


def dataset(
    folder: Path, shards: Mapping[str, Members], *, schema: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a dataset; packed if there is a schema."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, members in shards.items():
        data = tar(members)
        (folder / name).write_bytes(data)
        rows.append(shard_row(name, members, data))
    if schema is None:
        stats: dict[str, MemberStats] = {}
        for members in shards.values():
            for name, payload in members:
                stats.setdefault(name.partition(".")[2], MemberStats()).observe(len(payload))
    described: dict[str, Any] = {
        "encoding": "files" if schema is None else "msgpack",
        "schema": member_schema(stats, sum(row.samples for row in rows)) if schema is None else schema,
        "name": "d",
        "samples": sum(row.samples for row in rows),
        "bytes": sum(row.bytes for row in rows),
        "payload": sum(len(payload) for members in shards.values() for _, payload in members),
        "job": "",
        "shards": tuple(rows),
    }
    (folder / MANIFEST).write_bytes(Manifest(**(described | changes)).dumps())
    return folder


def report(place: Path | str, jobs: int | None = None) -> VerifyReport:
    files = StoreFiles()
    return verify(locate(parse(str(place)), files), files, jobs=jobs)


def found(place: Path | str, jobs: int | None = None) -> list[Found]:
    """Problems as (kind, file name of the shard, key, offset)."""
    return [
        (problem.kind, problem.shard.rpartition("/")[2], problem.key, problem.offset)
        for problem in report(place, jobs).problems
    ]


def damage(path: Path, change: Callable[[bytearray], bytes | bytearray | None]) -> None:
    """Replace a file's content by what *change* returns, or has made of its argument."""
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data) or data)


def mend_checksum(data: bytearray, at: int) -> None:
    """Make the checksum of the header at an offset right."""
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def shard(folder: Path, members: Members, name: str = "x.tar") -> Path:
    """Write one shard, without a manifest."""
    (folder / name).write_bytes(tar(members))
    return folder / name
