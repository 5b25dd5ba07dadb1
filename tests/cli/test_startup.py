"""The program does without torch, which takes seconds to import; the library decides nothing about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def torch(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a package torch, which leaves a trace when it is imported."""
    package = tmp_path / "packages" / "torch"
    package.mkdir(parents=True)
    trace = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
    (package / "__init__.py").write_text(trace + "raise ModuleNotFoundError('enough')\n")
    return package


def test_the_program_does_not_import_torch(cli, rows_file, torch):
    ran = cli("write", rows_file, "out", env={"PYTHONPATH": str(torch.parent)})
    assert ran.code == 0, ran.err
    assert not (torch / "imported").exists()


def test_the_library_leaves_torch_to_webdataset(torch):
    env = {**os.environ, "PYTHONPATH": str(torch.parent)}
    subprocess.run([sys.executable, "-c", "import atdata_cli.shards.writer"], env=env, check=True)
    assert (torch / "imported").exists()


def test_torch_can_be_imported_after_webdataset(torch):
    program = "from atdata_cli.cli.lean import import_webdataset; import_webdataset(); import torch"
    env = {**os.environ, "PYTHONPATH": str(torch.parent)}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert "enough" in ran.stderr
    assert (torch / "imported").exists()
