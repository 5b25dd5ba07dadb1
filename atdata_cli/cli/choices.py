"""What options choose from: the values that some of them have."""

from __future__ import annotations

import enum

__all__ = ["Color", "Compression", "Encoding", "IfCopied", "IfExists", "OnError", "UrlFormat"]


class Color(enum.StrEnum):
    """When to colour what people read."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Encoding(enum.StrEnum):
    """How a sample is laid out in a shard."""

    FILES = "files"
    MSGPACK = "msgpack"


class Compression(enum.StrEnum):
    """How shards are compressed."""

    GZ = "gz"


class OnError(enum.StrEnum):
    """What a sample that cannot be written does to the run."""

    FAIL = "fail"
    SKIP = "skip"


class IfCopied(enum.StrEnum):
    """What happens if DEST holds some or all of the copy already."""

    RESUME = "resume"
    FAIL = "fail"


class IfExists(enum.StrEnum):
    """What happens if DEST holds something already."""

    RESUME = "resume"
    UPDATE = "update"
    FAIL = "fail"


class UrlFormat(enum.StrEnum):
    """How URLs are printed."""

    LINES = "lines"
    BRACES = "braces"
    JSON = "json"
    WDS = "wds"
