"""How samples become bytes: msgpack maps, arrays inside them, and ``.json`` members.

The format is that of the Python library ``atdata``: one msgpack map of field name to value a sample, arrays as
``bytes`` with a small header. What its reader cannot take (maps with keys that are no strings, msgpack extension
types) is never written: dates become ISO 8601 text, decimals become text.
"""

from __future__ import annotations

import io
import math
import re
import struct
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from atdata_cli.errors import AtdataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Unencodable",
    "array_to_bytes",
    "bytes_to_array",
    "dump_json",
    "explain",
    "pack_rows",
    "packer",
    "plain_value",
    "unpack_rows",
]


class Unencodable(ValueError):
    """A value that no sample can hold; the message says why, for a reject."""


def array_to_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Serialise an array the way ``atdata`` does.

    ``u8`` length of the dtype string, the dtype string (``numpy.dtype.str``, such as ``<f4``), ``u8`` number of
    dimensions, each dimension as little-endian ``i64``, then the elements in C order.

    Raises
    ------
    Unencodable : for object dtypes (they would need pickle) and structured ones (their dtype string loses the names).
    """
    shape = array.shape
    ndim = len(shape)
    dimensions = _LENGTH.pack(1, *shape) if ndim == 1 else struct.pack(f"<B{ndim}q", ndim, *shape)
    return _dtype_header(array.dtype) + dimensions + array.tobytes()


_LENGTH = struct.Struct("<Bq")


@lru_cache(maxsize=256)
def _dtype_header(dtype: np.dtype[Any]) -> bytes:
    """Of the few dtypes of many arrays: to spell one takes longer than to write a short array."""
    if dtype.hasobject or dtype.names is not None:
        raise Unencodable(f"an array of dtype {dtype} cannot be written")
    text = dtype.str.encode("ascii")
    return bytes([len(text)]) + text


def plain_value(value: Any) -> Any:
    """Turn what msgpack does not know into what every reader does.

    Raises
    ------
    Unencodable : for a type without an obvious form.
    """
    # A row can only hold an array if its maker imported numpy; asking costs nothing where nobody did.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return array_to_bytes(value)
        if isinstance(value, numpy.datetime64):
            return str(value)  # ISO 8601; item() gives a bare number for nanoseconds
        if isinstance(value, numpy.generic):
            return value.item()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, int):
        raise Unencodable("an integer beyond 64 bits")
    name = type(value).__name__
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if name in {"Decimal", "UUID"}:
        return str(value)
    raise Unencodable(f"a value of type {name} cannot be written")


def packer() -> Callable[[Any], bytes]:
    """One reusable msgpack packer's ``pack``; not to be shared between threads."""
    import msgpack

    pack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True, default=plain_value).pack
    return pack


def pack_rows(pack: Callable[[Any], bytes], rows: Iterable[Any]) -> list[bytes]:
    """Pack rows in one go; any failure says only that some row cannot be packed.

    Raises
    ------
    ValueError, TypeError, OverflowError : as msgpack does; pack the rows one by one to learn which.
    """
    return list(map(pack, rows))


def explain(error: Exception) -> str:
    """Why msgpack or orjson refused a value, in a person's words."""
    if isinstance(error, AtdataError):
        return error.message
    if isinstance(error, Unencodable):
        return str(error)
    if isinstance(error, OverflowError):
        return "an integer beyond 64 bits"
    if isinstance(error, UnicodeError):
        return "text with a lone surrogate, which is not valid Unicode"
    if isinstance(error, RecursionError) or "recursion" in str(error).lower():
        return "nested too deeply"
    return str(error) or type(error).__name__


def dump_json(value: Any) -> bytes:
    """A ``.json`` member: compact, fields in their own order, UTF-8.

    Raises
    ------
    TypeError : for a value that JSON cannot hold.
    """
    import orjson

    return orjson.dumps(value, default=_json_value, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        raise Unencodable("bytes cannot be written as JSON")
    return plain_value(value)


_ARRAY_DTYPE = re.compile(rb"[<>|=][biufcSUmM?]\d{1,5}(\[[a-zA-Z0-9]+\])?")
_NPY_MAGIC = b"\x93NUMPY"


def bytes_to_array(data: bytes) -> np.ndarray[Any, Any] | None:
    """Read back what :func:`array_to_bytes` wrote, or the older ``.npy`` form; None if *data* is neither.

    The header has to account for every byte, so that bytes that are no array are not taken for one. The array is a
    view of *data*.
    """
    import numpy as np

    if data.startswith(_NPY_MAGIC):
        try:
            loaded: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception:  # the header is Python text: a hostile one raises errors of every kind, MemoryError too
            return None
        return loaded
    if len(data) < 2 or not _ARRAY_DTYPE.fullmatch(data, 1, 1 + data[0]):
        return None
    start = 2 + data[0]
    try:
        dtype = np.dtype(data[1 : 1 + data[0]].decode("ascii"))
        shape = struct.unpack_from(f"<{data[start - 1]}q", data, start)
        start += 8 * len(shape)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - start:
            return None
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.frombuffer(data, dtype, offset=start).reshape(shape)
    except (struct.error, TypeError, ValueError, IndexError):
        return None


def unpack_rows(payloads: Iterable[bytes]) -> list[dict[str, Any]] | None:
    """Decode packed samples, arrays included; None if one of them is no map with text keys."""
    import msgpack

    rows = []
    for payload in payloads:
        try:
            row = msgpack.unpackb(payload, raw=False, strict_map_key=True)
        except (ValueError, msgpack.exceptions.UnpackException):
            return None
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            return None
        for name, value in row.items():
            if isinstance(value, bytes):
                array = bytes_to_array(value)
                if array is not None:
                    row[name] = array
        rows.append(row)
    return rows
