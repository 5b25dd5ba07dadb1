"""Memory on the way into a PDS grows neither with data nor with shards: of four at a time none is held whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, environment
from tests.measure import peak

MB = 10**6
MIB = 1 << 20
FACTOR = 12
MOST = 200 * MB
# Four shards of 48 MiB, held whole, would be three times that. What it differs by from run to run is 20 MB.
GROWTH = 60 * MB


@pytest.mark.parametrize("command", ["write", "publish"])
def test_memory(cli, pds_account, tmp_path: Path, command: str):
    one = tmp_path / "one"
    with one.open("wb") as file:
        file.truncate(MIB)
    env = environment(tmp_path / "home", {**pds_account.env, "PYTHONDONTWRITEBYTECODE": "1"})
    peaks = []
    for count in (16, 16 * FACTOR):
        folder = tmp_path / f"members-{count}"
        folder.mkdir()
        for number in range(count):
            os.link(one, folder / f"{number:04d}.bin")
        source, target, limit = folder.name, f"@{pds_account.handle}/n{count}", ["--max-size", f"{count // 4 + 1}M"]
        if command == "publish":
            source, options = f"{folder.name}-shards", ["--blobs"]
            assert cli("write", folder, source, *limit).code == 0
        else:
            options = limit
        most, out = peak(tmp_path / ".peak", COMMAND, command, source, target, *options, cwd=tmp_path, env=env)
        assert len(pds_account.records("science.alt.dataset.entry")) == len(peaks) + 1, out
        peaks.append(most)
    shutil.rmtree(tmp_path / f"members-{16 * FACTOR}-shards", ignore_errors=True)
    assert len(pds_account.blobs()) == 8
    print("peak memory:", [round(most / MB) for most in peaks])
    assert peaks[1] < MOST
    assert peaks[1] - peaks[0] < GROWTH
