"""Fixtures that all tests share."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from atdata_cli import S3DataStore
from tests import distribution
from tests.servers import pds, seaweed
from tests.servers.seaweed import S3Server, make_bucket, remove_bucket

# Timings belong to benchmarks: a busy machine must not fail a property.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

pytest.register_assert_rewrite("atdata_cli.stores.testing")

# A shell lets what it starts in the background ignore SIGINT, and all that is started from there: the commands under
# test, too, which would leave it so. A handler becomes the default in them.
signal.signal(signal.SIGINT, signal.default_int_handler)


def common_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of this test run, the same for all its workers."""
    folder: Path = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[S3Server]:
    """A real S3 server, one for all workers of a test run."""
    with seaweed.shared_server(common_folder(tmp_path_factory, worker_id) / "s3-server") as server:
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


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> distribution.Distribution:
    """The sdist and the wheel."""
    return distribution.build(common_folder(tmp_path_factory, worker_id) / "distribution")


@pytest.fixture(scope="session")
def pds_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[pds.PDSServer]:
    """A real PDS with a PLC directory, one for all workers of a test run: no rate limits, blobs up to 50 MiB."""
    with pds.shared_server(common_folder(tmp_path_factory, worker_id) / "pds-server") as server:
        yield server


@pytest.fixture
def pds_account(pds_server: pds.PDSServer) -> pds.Account:
    """A fresh account on :func:`pds_server`; ``pds_account.env`` are the variables that log in to it."""
    return pds_server.account()
