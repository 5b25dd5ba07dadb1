"""A newcomer's path, by the README alone: a clone, ``make demo``, and then what is their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.e2e.test_reference import reference

__all__ = ["reference"]

ROOT = Path(__file__).parents[2]
DEMO_SECONDS = 600


def sh(script: str, folder: Path, env: dict[str, str]) -> str:
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_from_a_clone_to_python(reference, s3_server, s3_bucket, s3_env, tmp_path, record_property):
    clone = tmp_path / "clone"
    env = environment(tmp_path / "reference-home", s3_env)
    begun = time.monotonic()
    installing = dict(os.environ)  # where pip finds its configuration
    sh(f"git -c safe.directory='*' clone --quiet {ROOT} clone", tmp_path, installing)
    assert {"make demo", "make test"} <= set(re.findall(r"^\$ (make \w+)", (clone / "README.md").read_text(), re.M))
    said = sh("make demo", clone, installing)
    record_property("make demo, seconds", round(time.monotonic() - begun))
    assert "1797 samples" in said.replace(",", ""), said  # scikit-learn's digits

    own = tmp_path / "own"
    own.mkdir()
    rows = [{"number": number, "text": f"row {number}"} for number in range(100)]
    (own / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env["PATH"] = f"{clone / '.venv-demo/bin'}:{env['PATH']}"
    path = f"s3://{s3_bucket}/own"
    shards = sh(f"atdata-cli write rows.jsonl {path}", own, env).split()
    assert shards == [f"{path}/shard-000000.tar"]
    assert sh(f"atdata-cli publish {path} @local/own", own, env).split() == ["atdata://local/dataset/own"]
    record_property("from the clone to the published dataset, seconds", round(time.monotonic() - begun))
    script = """
import atdata_cli

store = atdata_cli.S3DataStore(
    {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT")},
    bucket=sys.argv[1],
)
loaded = atdata.load_dataset("@local/own", split="train", index=atdata.Index(data_store=store))
done([[sample.number, sample.text] for sample in loaded.ordered()])
"""
    loaded = reference(script, s3_bucket, env=s3_server.credentials)
    assert loaded == [[row["number"], row["text"]] for row in rows]
