"""The installed command and the reference library, end to end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgpack
import pytest
import webdataset

from atdata_cli import S3DataStore
from tests.cli.conftest import Cli, cli, photos, rows_file
from tests.servers.seaweed import S3Server

__all__ = ["Cli", "cli", "members", "packed", "photos", "rows_file", "store"]


def members(urls: Iterable[str | Path]) -> list[tuple[str, dict[str, bytes]]]:
    """(key, field to content) of all samples in shards, as webdataset reads them."""
    dataset = webdataset.WebDataset([str(url) for url in urls], shardshuffle=False, empty_check=False)
    return [(sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")}) for sample in dataset]


def packed(folder: Path) -> list[dict]:
    """All packed samples of a written folder, in order."""
    return [msgpack.unpackb(fields["msgpack"]) for _, fields in members(sorted(folder.glob("*.tar*")))]


@pytest.fixture
def s3_env(s3_server: S3Server) -> dict[str, str]:
    """The normal AWS variables for the server."""
    return {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret,
        "AWS_REGION": "us-east-1",
    }


@pytest.fixture
def store(s3_server: S3Server, s3_bucket: str) -> S3DataStore:
    """The bucket, to look at what is in it."""
    return S3DataStore(s3_server.credentials, bucket=s3_bucket)
