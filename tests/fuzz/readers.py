"""The readers under a fuzzer that follows the code: ``python -m tests.fuzz.readers tar|msgpack [LIBFUZZER OPTIONS]``.

What is thrown, but for the errors that a damaged input is told by, ends the run; so do an input that takes longer than
``-timeout`` and memory beyond ``-rss_limit_mb``.
"""

from __future__ import annotations

import io
import sys

import atheris

with atheris.instrument_imports(include=["atdata_cli"]):
    from atdata_cli.errors import IntegrityError
    from atdata_cli.samples.codec import unpack_rows
    from atdata_cli.samples.rowcheck import decode, skim
    from atdata_cli.samples.tar import Member, TarDamage, TarReader

_MOST_DAMAGE = 100


def tar(data: bytes) -> None:
    """All members, their payloads, and on behind each damage; the scan that takes plain headers together agrees."""
    if data[-1:] > b"\x7f":
        data = _mended(data)
    for seek in (True, False):
        reader = TarReader(io.BytesIO(data), where="x.tar", seek=seek, block=1024)
        at: int | None = 0
        for _ in range(_MOST_DAMAGE):
            if at is None:
                break
            try:
                for member in reader.members(at):
                    assert len(reader.read()) == member.size
                break
            except TarDamage as damage:
                at = reader.resume(damage)
    assert _one_by_one(data) == _together(data)


def _mended(data: bytes) -> bytes:
    """With right checksums, so that what headers say is tried, and not only whether they are whole."""
    mended = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        if mended[at + 257 : at + 262] == b"ustar":
            mended[at + 148 : at + 156] = b" " * 8
            mended[at + 148 : at + 156] = b"%06o\0 " % sum(mended[at : at + 512])
    return bytes(mended)


def _one_by_one(data: bytes) -> list[object]:
    found: list[object] = []
    try:
        found.extend((member.name, member.size) for member in TarReader(io.BytesIO(data), where="x.tar", seek=True))
    except IntegrityError as error:
        return [str(error)]
    return found


def _together(data: bytes) -> list[object]:
    found: list[object] = []
    try:
        for item in TarReader(io.BytesIO(data), where="x.tar", seek=True).runs():
            if isinstance(item, Member):
                found.append((item.name, item.size))
            else:
                assert len(item.names) == 100 * len(item.sizes)
                fields = (item.names[at : at + 100].partition(b"\0")[0] for at in range(0, len(item.names), 100))
                names = (str(field, "utf-8", "surrogateescape") for field in fields)
                found.extend(zip(names, item.sizes, strict=True))
    except IntegrityError as error:
        return [str(error)]
    return found


def msgpack(data: bytes) -> None:
    """Decoding, arrays included, gives a map or None; the look that decodes nothing finds no fault with a good map."""
    rows = unpack_rows([data])
    assert rows is None or isinstance(rows[0], dict)
    (decoded,) = decode([data])
    skimmed = skim(io.BytesIO(data))
    if isinstance(skimmed, str):
        assert isinstance(decoded, str), skimmed


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], {"tar": tar, "msgpack": msgpack}[sys.argv[1]])
    atheris.Fuzz()
