"""Images and arrays as small pictures in ``data:`` URIs. What is decoded here was made by strangers."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["Picture", "Undecodable", "array_picture", "data_uri", "sparkline", "thumbnail"]

LONGEST_SIDE = 320
_LOSSLESS_SIDE = 64  # images up to this stay as they are: their pixels are what one wants to see
_MOST_PIXELS = 50_000_000
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})
_SPARK_POINTS, SPARK_HEIGHT = 160, 40

# Viridis at five places: dark to light, also for the colour-blind and on grey paper.
_VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)

Array = np.ndarray[Any, Any]


class Undecodable(ValueError):
    """The message says why an image cannot be shown."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to show.

    Attributes
    ----------
    src : ``data:`` URI.
    width, height : of the picture itself, in pixels.
    note : what it was made from: ``640 × 427 JPEG``.
    pixels : each pixel is to be seen, so it is enlarged without smoothing.
    """

    src: str
    width: int
    height: int
    note: str
    pixels: bool = False


def data_uri(kind: str, data: bytes) -> str:
    """*data* as a URI of a MIME type."""
    return f"data:{kind};base64," + base64.b64encode(data).decode("ascii")


def thumbnail(data: bytes) -> Picture:
    """An image of at most :data:`LONGEST_SIDE`, upright.

    Raises
    ------
    Undecodable : it is damaged, of an unknown format, or larger than is safe to decode.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _thumbnail(data)
        except Undecodable:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise Undecodable("too many pixels to decode safely") from error
        except Exception as error:  # decoders raise what they like on damaged input
            raise Undecodable(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return f"the image is damaged: {error or type(error).__name__}"


def _thumbnail(data: bytes) -> Picture:
    Image.init()
    # Only formats that Pillow decodes itself: it would hand EPS to Ghostscript.
    with Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
        width, height = image.size
        if width * height > _MOST_PIXELS:
            raise Undecodable(f"{width} × {height} pixels are too many to decode safely")
        if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
            width, height = height, width
        note = f"{width} × {height} {image.format}"
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            return _deep(np.asarray(image), note)
        image.draft("RGB", (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))  # JPEG: decodes no more than is needed
        small = max(width, height) <= _LOSSLESS_SIDE
        transparent = image.has_transparency_data
        colour = image.convert("RGBA" if transparent else "L" if image.mode in ("1", "L") else "RGB")
        colour.info = image.info
        colour.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        upright = ImageOps.exif_transpose(colour)
        return _encoded(upright, note, lossless=small or transparent, pixels=small)


def _deep(array: Array, note: str) -> Picture:
    """More than eight bits a pixel: what is darkest becomes black, what is brightest white."""
    return _encoded(Image.fromarray(_scaled(_strided(array))), note, lossless=True, pixels=max(array.shape) <= 64)


def _encoded(image: Image.Image, note: str, *, lossless: bool, pixels: bool) -> Picture:
    stream = io.BytesIO()
    if lossless:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=82, optimize=True)
    src = data_uri("image/png" if lossless else "image/jpeg", stream.getvalue())
    return Picture(src, image.width, image.height, note, pixels)


def array_picture(array: Array) -> Picture | None:
    """An array of two or more dimensions as a picture; None if it holds no numbers, or too few dimensions.

    H × W × 1, 3 or 4 and 3 × H × W are images; of more dimensions the first slice is shown.
    """
    if array.dtype.kind not in "biufc" or array.ndim < 2 or not array.size:
        return None
    note = "first slice" if array.ndim > 3 else ""
    while array.ndim > 3:
        array = array[0]
    if array.ndim == 3:
        if array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
            array = np.moveaxis(array, 0, -1)
        if array.shape[-1] == 1:
            array = array[..., 0]
        elif array.shape[-1] not in (3, 4):
            array, note = array[0], "first slice"
    array = _strided(array)
    drawn = array if array.dtype == np.uint8 else _scaled(array)
    if drawn.ndim == 2 and array.dtype.kind not in "b" and array.dtype != np.uint8:
        drawn = _coloured(drawn)
    drawn = _not_too_thin(drawn)
    return _encoded(Image.fromarray(np.ascontiguousarray(drawn)), note, lossless=True, pixels=True)


def _strided(array: Array) -> Array:
    step = max(1, ceil(max(array.shape[:2]) / LONGEST_SIDE))
    return array[::step, ::step]


def _scaled(array: Array) -> Array:
    """Numbers as 0 … 255; what is not finite is 0."""
    with np.errstate(all="ignore"):
        numbers = (np.abs(array) if array.dtype.kind == "c" else array).astype(np.float64) / 2  # so that spans fit
        finite = np.isfinite(numbers)
        if not finite.any():
            return np.zeros(array.shape, np.uint8)
        low, high = numbers[finite].min(), numbers[finite].max()
        span = high - low
        scaled = (numbers - low) / span * 255 if span > 0 else np.full(array.shape, 127.0)
        return np.where(finite, np.nan_to_num(scaled), 0).clip(0, 255).astype(np.uint8)


def _coloured(grey: Array) -> Array:
    at = np.linspace(0, 255, len(_VIRIDIS))
    table = np.stack([np.interp(np.arange(256), at, _VIRIDIS[:, channel]) for channel in range(3)], axis=-1)
    coloured: Array = table.astype(np.uint8)[grey]
    return coloured


def _not_too_thin(picture: Array) -> Array:
    """One row of a thousand numbers would be a hairline."""
    height, width = picture.shape[:2]
    picture = np.repeat(picture, max(1, width // (8 * height)), axis=0)
    return np.repeat(picture, max(1, height // (8 * width)), axis=1)


def sparkline(array: Array) -> str:
    """The points of a polyline, 160 wide and 40 high at most; empty if there are fewer than two numbers."""
    if array.dtype.kind not in "biufc" or array.ndim != 1:
        return ""
    step = max(1, ceil(array.size / _SPARK_POINTS))
    with np.errstate(all="ignore"):
        taken = array[::step]
        numbers = (np.abs(taken) if taken.dtype.kind == "c" else taken).astype(np.float64) / 2
    numbers = numbers[np.isfinite(numbers)]
    if numbers.size < 2:
        return ""
    low, span = numbers.min(), float(np.ptp(numbers)) or 1.0
    across = _SPARK_POINTS / (numbers.size - 1)
    room = SPARK_HEIGHT - 4
    return " ".join(f"{i * across:.1f},{2 + room * (1 - (y - low) / span):.1f}" for i, y in enumerate(numbers))
