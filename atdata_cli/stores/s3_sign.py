"""Presigned URLs of an S3 client: SigV4, for the endpoint of the bucket's own region, and how long they live."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from atdata_cli.stores.base import Session

__all__ = ["is_amazon", "prepare", "presign", "session"]

_REGIONAL_HOST = re.compile(r"(?:^|\.)s3(?:\.dualstack)?[.-]([a-z]{2}(?:-[a-z]+)+-\d+)\.amazonaws\.com")


def is_amazon(client: Any) -> bool:
    """Whether the client speaks to AWS, not to another server of the protocol."""
    return (urlsplit(client.meta.endpoint_url).hostname or "").endswith(".amazonaws.com")


def prepare(client: Any, *, requester_pays: bool) -> None:
    """Make what the client signs from now on work for whoever has the URL.

    botocore signs for ``s3.amazonaws.com`` unless it is told "virtual" (``botocore.signers``), but newer regions
    do not answer there. By now the style of addressing is fixed, so this changes the host and nothing else.
    """
    if is_amazon(client):
        client.meta.config.s3 = {**client.meta.config.s3, "addressing_style": "virtual"}
    client.meta.events.register("before-sign.s3.GetObject", _sign_for_the_host)
    if requester_pays:
        client.meta.events.register("before-sign.s3.GetObject", _pay_in_query)


def _sign_for_the_host(request: Any, signature_version: Any, **_: Any) -> None:
    """The region of the host, which a redirect to the bucket's own has set, is the one to sign for."""
    found = _REGIONAL_HOST.search(urlsplit(request.url).hostname or "")
    if found and _is_presigned(signature_version):
        request.context.setdefault("signing", {})["region"] = found[1]


def _pay_in_query(request: Any, signature_version: Any, **_: Any) -> None:
    """S3 takes it as a header too, but a reader of the URL sends none."""
    if _is_presigned(signature_version):
        request.params = {**request.params, "x-amz-request-payer": "requester"}


def _is_presigned(signature_version: Any) -> bool:
    return str(signature_version).endswith("-query")


async def presign(client: Any, objects: Iterable[dict[str, Any]], seconds: int) -> list[str]:
    """A URL for each of *objects* (their parameters in a request), in order; unsigned for an anonymous client."""
    return [
        str(await client.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)) for params in objects
    ]


async def session(client: Any) -> Session | None:
    """The temporary credentials of the client, renewed if they were about to end; None if it has lasting ones."""
    credentials = client._request_signer._credentials  # no public way leads to them
    if credentials is None:
        return None
    frozen = await credentials.get_frozen_credentials()
    return Session(getattr(credentials, "_expiry_time", None)) if frozen.token else None
