"""Taking the secrets out of what is printed."""

from __future__ import annotations

import re

__all__ = ["redact"]

_SIGNING_PARAMETERS = (
    "X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token|X-Goog-Signature|X-Goog-Credential"
    "|AWSAccessKeyId|GoogleAccessId|Signature|sig|token|access_token|id_token|refresh_token|auth|api[_-]?key"
    "|password|passwd|secret|client_secret|Policy|Key-Pair-Id"
)


def redact(text: str) -> str:
    """*text* with the secrets of the URLs in it replaced by ``***``: for everything that is printed.

    User and password, and the parameters that sign a presigned URL (S3, Google, Azure, CloudFront) or carry a
    token.
    """
    # A raw secret key may hold "/", which ends the authority: known by the shape of the key id before it.
    text = re.sub(r"(://)A[A-Z0-9]{15,}:[^@\s]*@", r"\1***@", text)
    text = re.sub(r"(://)[^/?#\s@]*:[^/?#\s]*@", r"\1***@", text)
    # "https://TOKEN@host"; elsewhere the part before "@" is a user or a container ("abfs://container@account").
    text = re.sub(r"(?i)(https?://)[^/?#\s]*@", r"\1***@", text)
    return re.sub(rf"(?i)([?&;#](?:{_SIGNING_PARAMETERS})=)[^&;#\s'\"<>]*", r"\1***", text)
