"""Rows that all have the same fields, as objects that cost far less than a dict each.

A ``msgspec.Struct`` of the known fields is made once; JSON is decoded into it, and msgpack encoded from it, without the
names ever becoming Python objects again. What comes out is byte for byte what :func:`~atdata_cli.samples.codec.packer`
makes of a dict of the same fields in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from atdata_cli.samples.codec import plain_value

__all__ = ["UNREADABLE", "RecordType"]

UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What decoding and packing raise for rows of another kind."""


class RecordType:
    """The type of rows with certain fields.

    Parameters
    ----------
    fields : names, in the order in which they are written.

    Raises
    ------
    ValueError : a name is one that msgspec cannot look for as it is in JSON: with a quote, a backslash or a control
        character.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        attributes = [f"f{index}" for index in range(len(fields))]
        self._type = msgspec.defstruct(
            "Record",
            [(attribute, Any, None) for attribute in attributes],
            rename=dict(zip(attributes, fields, strict=True)),
            forbid_unknown_fields=True,
            gc=False,  # values from JSON and Arrow hold no cycles
        )
        self._decode = msgspec.json.Decoder(self._type).decode_lines
        self._encode = msgspec.msgpack.Encoder(enc_hook=plain_value).encode
        self._getters = [attrgetter(attribute) for attribute in attributes]

    def decode(self, block: bytes) -> list[msgspec.Struct]:
        """Records of whole lines of JSON; a field that one lacks is None.

        Raises
        ------
        UNREADABLE : some line is no JSON, no object, or has another field.
        """
        return self._decode(block)

    def records(self, columns: Sequence[Sequence[Any]]) -> list[msgspec.Struct]:
        """Records of one column a field."""
        return list(map(self._type, *columns))

    def pack(self, records: Iterable[msgspec.Struct]) -> list[bytes]:
        """The records as msgpack.

        Raises
        ------
        UNREADABLE : a value that cannot be written, such as an integer beyond 64 bits.
        """
        return list(map(self._encode, records))

    def columns(self, records: Sequence[msgspec.Struct]) -> list[list[Any]]:
        """The values of each field."""
        return [list(map(getter, records)) for getter in self._getters]
