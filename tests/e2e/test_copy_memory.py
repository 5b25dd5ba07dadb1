"""Copies take as much memory as shards are under way, however large these are, and no disk but DEST's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, environment
from tests.measure import peak

MB = 10**6
MIB = 1 << 20
MOST = 300 * MB


@pytest.mark.parametrize("route", ["disk to s3", "s3 to s3", "s3 to disk"])
def test_large_shards(cli, s3_env, s3_bucket, tmp_path: Path, route: str):
    folder = tmp_path / "ds"
    folder.mkdir()
    for number in range(4):
        with (folder / f"{number}.tar").open("wb") as file:  # zeros, which take no room on this disk
            file.truncate(96 * MIB)
    stored = f"s3://{s3_bucket}/ds"
    source, dest, disk = {
        "disk to s3": ("ds", stored, 0),
        "s3 to s3": (stored, f"s3://{s3_bucket}/copy", 0),
        "s3 to disk": (stored, "out", None),
    }[route]
    if source == stored:
        assert cli("copy", "ds", stored, env=s3_env).code == 0
    env = environment(tmp_path / "home", s3_env | {"PYTHONDONTWRITEBYTECODE": "1"})
    most, _ = peak(tmp_path / ".peak", COMMAND, "copy", source, dest, file_limit=disk, cwd=tmp_path, env=env)
    print(f"peak memory: {most / MB:.0f} MB")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert most < MOST
