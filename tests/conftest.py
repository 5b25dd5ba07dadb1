"""Fixtures that all tests share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from atdata_cli import S3DataStore
from tests.servers.seaweed import S3Server, make_bucket, remove_bucket, shared_server

# Timings belong to benchmarks: a busy machine must not fail a property.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

pytest.register_assert_rewrite("atdata_cli.stores.testing")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[S3Server]:
    """A real S3 server, one for all workers of a test run."""
    folder: Path = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent
    with shared_server(folder / "s3-server") as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> Iterator[str]:
    """A fresh bucket of :func:`s3_server`, gone after the test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    make_bucket(s3_server, name)
    yield name
    remove_bucket(s3_server, name)


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
