"""One value of one sample as the page shows it, within what the page can hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import Any, Literal

import numpy as np

from atdata_cli.report.charts import cut, number
from atdata_cli.report.members import LARGEST, Member, load
from atdata_cli.report.pictures import Picture, Undecodable, array_picture, data_uri, sparkline, thumbnail
from atdata_cli.words import human_bytes

__all__ = ["Preview", "Room", "preview"]

_INLINE = 120  # characters that stand beside a field's name
_HEAD = 240  # characters of longer text; the rest can be unfolded
_WHOLE = 20_000  # characters that can be unfolded
_HEX = 64  # bytes shown of what nobody knows
_LARGEST_AUDIO = 2 << 20
_DEEPEST, _MOST_ENTRIES = 8, 100


@dataclass(slots=True)
class Room:
    """What the page can still take, in bytes, so that it stays below 10 MB whatever the data."""

    images: int = 3_000_000
    audio: int = 2_900_000
    text: int = 1_000_000

    def take(self, what: Literal["images", "audio", "text"], text: str) -> bool:
        """Whether *text* fits, escaped; if so it is taken."""
        left = getattr(self, what) - len(escape(text).encode("utf-8", "replace"))
        if left < 0:
            return False
        setattr(self, what, left)
        return True


@dataclass(frozen=True, slots=True)
class Preview:
    """How a value is shown.

    Attributes
    ----------
    name : the field's.
    kind : ``inline`` text stands beside the name, ``text`` and ``code`` below it; ``image`` and ``audio`` have a
        *src*; ``spark`` has *points*.
    text : the value, or its beginning.
    whole : more of it, to be unfolded.
    note : what it is: dimensions, size, type.
    picture : of images and arrays.
    src : of audio.
    points : of a sparkline.
    problem : what is wrong with it.
    number : whether it is one number.
    """

    name: str
    kind: Literal["inline", "text", "code", "image", "audio", "spark"]
    text: str = ""
    whole: str = ""
    note: str = ""
    picture: Picture | None = None
    src: str = ""
    points: str = ""
    problem: str | None = None
    number: bool = False

    @property
    def small(self) -> bool:
        """Whether it fits into a cell of a table."""
        return self.kind == "inline" and not self.problem


def preview(name: str, value: Any, room: Room) -> Preview:
    """How to show *value*, a field's as ``members.decode`` gave it."""
    value = load(name, value)
    if isinstance(value, Member):
        return _MEMBERS.get(value.kind, _bytes)(name, value, room)
    if isinstance(value, np.ndarray):
        return _array(name, value, room)
    if isinstance(value, str):
        return _text(name, value, room)
    if isinstance(value, list) and _is_signal(value):
        return _signal(name, value, room)
    if isinstance(value, list | dict):
        return _structure(name, value, room)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Preview(name, "inline", _scalar(value), number=is_number)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, float) else cut(str(value), _INLINE)


def _text(name: str, text: str, room: Room, *, kind: Literal["text", "code"] = "text", note: str = "") -> Preview:
    if len(text) <= _INLINE and "\n" not in text:
        return Preview(name, "inline", text, note=note)
    if len(text) <= _HEAD and text.count("\n") < 12:
        return Preview(name, kind, text, note=note)
    head = "\n".join(text[:_HEAD].split("\n")[:12]) + " …"
    note = note or f"{len(text):,} characters"
    whole = cut(text, _WHOLE)
    return Preview(name, kind, head, whole if room.take("text", whole) else "", note=note)


def _structure(name: str, value: Any, room: Room) -> Preview:
    shown = _plain(value, _DEEPEST)
    line = json.dumps(shown, ensure_ascii=False)
    if len(line) <= _INLINE // 2:
        return Preview(name, "inline", line)
    return _text(name, json.dumps(shown, ensure_ascii=False, indent=2), room, kind="code")


def _plain(value: Any, depth: int) -> Any:
    """*value* for JSON: not too deep, not too much of it, bytes and arrays by what they are."""
    if isinstance(value, bytes):
        return f"<{human_bytes(len(value))} of bytes>"
    if isinstance(value, np.ndarray):
        return f"<{_shape(value)}>"
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, list | dict) and value and not depth:
        return "…"
    if isinstance(value, list):
        rest = len(value) - _MOST_ENTRIES
        items = [_plain(item, depth - 1) for item in value[:_MOST_ENTRIES]]
        return [*items, f"… {rest:,} more"] if rest > 0 else items
    if isinstance(value, dict):
        entries = {str(key): _plain(item, depth - 1) for key, item in list(value.items())[:_MOST_ENTRIES]}
        return entries | ({"…": f"{len(value) - _MOST_ENTRIES:,} more"} if len(value) > _MOST_ENTRIES else {})
    if value is None or isinstance(value, int | float):
        return value
    return cut(str(value), _WHOLE)


def _is_signal(values: list[Any]) -> bool:
    return len(values) >= 8 and all(type(value) in (int, float) for value in values)


def _signal(name: str, values: list[Any], room: Room) -> Preview:
    points = sparkline(np.array(values, np.float64))
    whole = ", ".join(map(_scalar, values[:1000])) + (" …" if len(values) > 1000 else "")
    whole = whole if room.take("text", whole) else ""
    return Preview(name, "spark", whole=whole, note=f"list of {len(values):,} numbers", points=points)


def _shape(array: np.ndarray[Any, Any]) -> str:
    return f"{array.dtype.name}[{' × '.join(f'{side:,}' for side in array.shape)}]"


def _array(name: str, array: np.ndarray[Any, Any], room: Room) -> Preview:
    note = _shape(array)
    if array.dtype.kind in "biuf" and array.size:
        low, high = array.min(), array.max()
        note += f", {_scalar(low.item())} … {_scalar(high.item())}" if array.ndim else f", {_scalar(low.item())}"
    picture = array_picture(array)
    if picture is not None and room.take("images", picture.src):
        note += f" ({picture.note})" if picture.note else ""
        return Preview(name, "image", note=note, picture=picture)
    points = sparkline(array)
    if points and room.take("text", points):
        return Preview(name, "spark", note=note, points=points)
    return Preview(name, "inline", note)


def _image(name: str, member: Member, room: Room) -> Preview:
    size = human_bytes(member.size)
    if name.lower().endswith("svg"):  # it is a program to a browser, so it is shown as its text
        return _source(name, member, room)
    if not isinstance(member.value, bytes):
        return Preview(name, "image", note=f"image, {size}: too large to read for this page")
    try:
        picture = thumbnail(member.value)
    except Undecodable as error:
        return Preview(name, "image", note=size, problem=cut(str(error), 200))
    if not room.take("images", picture.src):
        return Preview(name, "image", note=f"{picture.note}, {size}: left out to keep this page small")
    return Preview(name, "image", note=f"{picture.note}, {size}", picture=picture)


def _audio(name: str, member: Member, room: Room) -> Preview:
    note = f"audio, {human_bytes(member.size)}"
    if member.size > _LARGEST_AUDIO or not isinstance(member.value, bytes):
        return Preview(name, "audio", note=f"{note}: too long to be played from this page")
    kind = _audio_type(member.value)
    if kind is None:
        return Preview(name, "audio", note=note, problem="not audio of a known format (WAV, FLAC, Ogg, MP3)")
    src = data_uri(kind, member.value)
    if not room.take("audio", src):
        return Preview(name, "audio", note=f"{note}: left out to keep this page small")
    return Preview(name, "audio", note=f"{kind.partition('/')[2].upper()}, {human_bytes(member.size)}", src=src)


def _audio_type(data: bytes) -> str | None:
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "audio/wav"
    if data.startswith(b"fLaC"):
        return "audio/flac"
    if data.startswith(b"OggS"):
        return "audio/ogg"
    # MP3: a tag, or eleven set bits and a layer other than AAC's.
    if data.startswith(b"ID3") or (data[:1] == b"\xff" and data[1:2] >= b"\xe0" and data[1] & 0x06):
        return "audio/mpeg"
    return None


def _source(name: str, member: Member, room: Room) -> Preview:
    text = member.head(_WHOLE).decode("utf-8", "replace")
    shown = _text(name, text, room, kind="code", note=human_bytes(member.size))
    if member.problem is None:
        return shown
    return Preview(name, "code", shown.text, shown.whole, shown.note, problem=member.problem)


def _bytes(name: str, member: Member, room: Room) -> Preview:
    note = human_bytes(member.size) if member.kind == "bytes" else f"{member.kind}, {human_bytes(member.size)}"
    if member.size > LARGEST and not isinstance(member.value, bytes):
        return Preview(name, "inline", note)
    dump = member.head(_HEX).hex(" ") + (" …" if member.size > _HEX else "")
    return Preview(name, "code", dump, note=note, problem=member.problem)


_MEMBERS: dict[str, Callable[[str, Member, Room], Preview]] = {
    "image": _image,
    "audio": _audio,
    "text": _source,
    "json": _source,
}
