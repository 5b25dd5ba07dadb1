"""Numbers in a person's words."""

from __future__ import annotations

__all__ = ["count", "human_bytes", "totals", "typed_size"]


def human_bytes(size: float) -> str:
    """``1.5 MiB``; exact below 1 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def typed_size(size: int) -> str:
    """``512M``, ``1500KB`` or ``1000001``: to the byte, as an option takes it."""
    for factor, ending in ((1024, ("K", "M", "G", "T")), (1000, ("KB", "MB", "GB", "TB"))):
        power = 0
        while size and size % factor ** (power + 1) == 0 and power < len(ending):
            power += 1
        if power:
            return f"{size // factor**power}{ending[power - 1]}"
    return str(size)


def count(number: int, noun: str) -> str:
    """``1 sample``, ``2,000 samples``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def totals(samples: int, shards: int, size: int) -> str:
    """``3 samples in 1 shard, 10.0 KiB``."""
    return f"{count(samples, 'sample')} in {count(shards, 'shard')}, {human_bytes(size)}"
