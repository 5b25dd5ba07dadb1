"""What the campaigns share. Each runs for some seconds with the other tests, for minutes in ``make torture``."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from atdata_cli.cli.write import write
from tests.servers.faults import FaultyProxy
from tests.servers.seaweed import S3Server
from tests.torture.runs import Secrets, Tool

# Runs that write several shards at once, too, as soon as there are any.
JOBS: list[tuple[str, ...]] = [(), ("--jobs", "2")] if "jobs" in inspect.signature(write).parameters else [()]


def longer(*values: object) -> list[object]:
    """Parameters of a test that only the long campaigns add to others."""
    return [pytest.param(value, marks=pytest.mark.torture) for value in values]


@pytest.fixture(scope="session")
def secrets(s3_server: S3Server) -> Secrets:
    """All that no run of this session may tell."""
    known = Secrets()
    known.add(
        AWS_SECRET_ACCESS_KEY=s3_server.secret,
        AWS_SESSION_TOKEN="session/" + os.urandom(12).hex() + "==",
        PROXY_PASSWORD="pw+" + os.urandom(8).hex(),
        ATDATA_PASSWORD="app-" + os.urandom(8).hex(),
    )
    return known


@pytest.fixture
def tool(tmp_path: Path, secrets: Secrets, s3_env: dict[str, str]) -> Iterator[Tool]:
    """The command, with credentials that it may need and others that it must not tell."""
    (tmp_path / "home").mkdir()
    yield Tool(tmp_path, secrets, {**s3_env, "ATDATA_PASSWORD": secrets.values["ATDATA_PASSWORD"]})
    secrets.check_files(tmp_path / "home")
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy
