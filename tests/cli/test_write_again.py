"""The command over what earlier runs, or runs at the same time, left."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from atdata_cli import S3DataStore
from tests.cli.conftest import COMMAND, Cli, environment
from tests.servers.proxy import Faults, faulty
from tests.servers.seaweed import S3Server


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path, count: int, text: str = "x") -> None:
    path.write_text("".join(f'{{"id": {n}, "text": "{text * 20}"}}\n' for n in range(count)))


def test_unchanged(cli: Cli, rows_file: Path, tmp_path: Path) -> None:
    assert cli("write", "rows.jsonl", "out").code == 0
    first = tree(tmp_path / "out")
    again = cli("write", "rows.jsonl", "out", "--exit-unchanged")
    assert (again.code, again.lines) == (9, ["out/shard-000000.tar"])
    assert again.err.startswith("unchanged, 0 uploaded: 2,500 samples")
    document = cli("write", "rows.jsonl", "out", "--if-exists", "update", "--json").document
    assert (document["status"], document["uploaded"]) == ("unchanged", {"shards": 0, "bytes": 0})
    assert tree(tmp_path / "out") == first


def test_an_unchanged_manifest_is_newer_than_its_source(cli: Cli, tmp_path: Path) -> None:
    """Or make would run the rule for ever."""
    lines(tmp_path / "rows.jsonl", 10)
    (tmp_path / "Makefile").write_text(f"out/manifest.json: rows.jsonl\n\t{COMMAND} write rows.jsonl out\n")

    def make() -> str:
        env = environment(tmp_path / "home")
        return subprocess.run(["make"], cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout

    assert "shard-000000.tar" in make()
    assert "up to date" in make()
    later = time.time() + 5
    os.utime(tmp_path / "rows.jsonl", (later, later))
    manifest = tmp_path / "out" / "manifest.json"
    os.utime(manifest, (later - 10, later - 10))
    assert "shard-000000.tar" in make()
    assert manifest.stat().st_mtime > later - 10


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_update_and_prune(
    cli: Cli, tmp_path: Path, where: str, s3_bucket: str, s3_env: dict[str, str], store: S3DataStore
) -> None:
    dest = "out" if where == "disk" else f"s3://{s3_bucket}/out"
    path = tmp_path / "rows.jsonl"
    lines(path, 10)
    assert cli("write", "rows.jsonl", dest, "--max-count", "4", env=s3_env).code == 0
    path.write_text(path.read_text().replace('"id": 5', '"id": 6'))
    cli("write", "rows.jsonl", dest, "--max-count", "4", env=s3_env).failed(8, "other data", "--if-exists update")
    plan = cli("write", "rows.jsonl", dest, "--max-count", "4", "--if-exists", "update", "-n", env=s3_env)
    assert plan.code == 0
    assert "would write" in plan.err
    ran = cli("write", "rows.jsonl", dest, "--max-count", "4", "--if-exists", "update", env=s3_env)
    assert ran.code == 0, ran.err
    assert "1 shard uploaded" in ran.err
    first, changed, last = ran.lines
    assert (first, last) == (f"{dest}/shard-000000.tar", f"{dest}/shard-000002.tar")
    assert changed.startswith(f"{dest}/shard-000001-")
    assert cli("inspect", dest, "--verify", env=s3_env).code == 0
    would = cli("prune", dest, "--dry-run", env=s3_env)
    done = cli("prune", dest, env=s3_env)
    assert would.lines == done.lines == [f"{dest}/shard-000001.tar"]
    assert cli("prune", dest, env=s3_env).out == ""
    assert cli("inspect", dest, "--verify", env=s3_env).code == 0
    path.write_text(path.read_text() + '{"id": 11, "text": "new"}\n')
    ran = cli("write", "rows.jsonl", dest, "--max-count", "4", "--if-exists", "update", "--prune", "--json", env=s3_env)
    assert (ran.document["uploaded"]["shards"], ran.document["pruned"]) == (1, 1)
    assert cli("inspect", dest, "--verify", env=s3_env).code == 0


def test_a_nightly_stream_sends_what_changed(
    cli: Cli, tmp_path: Path, s3_bucket: str, s3_env: dict[str, str], s3_server: S3Server
) -> None:
    faults = Faults()
    with faulty(s3_server.endpoint, faults) as endpoint:
        env = {**s3_env, "AWS_ENDPOINT_URL": endpoint}
        arguments = ["-", f"s3://{s3_bucket}/p", "--from", "jsonl", "--max-count", "100", "--if-exists", "update"]

        def night(text: str) -> list[str]:
            faults.seen.clear()
            ran = cli("write", *arguments, stdin=text.encode(), env=env)
            assert ran.code == 0, ran.err
            stored = [one.path.partition("?")[0] for one in faults.seen if one.method in ("PUT", "POST", "DELETE")]
            return [path.rpartition("/")[2] for path in stored if path.endswith((".tar", ".json")) or "?" in path]

        rows = [json.dumps({"id": n}) for n in range(500)]
        assert "shard-000004.tar" in night("\n".join(rows))
        assert night("\n".join(rows)) == []
        rows[250] = '{"id": 0}'
        stored = [name for name in night("\n".join(rows)) if name.startswith("shard-")]
        assert len(stored) == 1
        assert stored[0].startswith("shard-000002-")


def test_an_unchanged_input_is_not_even_read(
    cli: Cli, tmp_path: Path, s3_bucket: str, s3_env: dict[str, str], s3_server: S3Server, store: S3DataStore
) -> None:
    store.put("in/rows.jsonl", b'{"id": 1}\n' * 1000)
    faults = Faults()
    with faulty(s3_server.endpoint, faults) as endpoint:
        env = {**s3_env, "AWS_ENDPOINT_URL": endpoint}

        def reads() -> int:
            faults.seen.clear()
            ran = cli("write", f"s3://{s3_bucket}/in/rows.jsonl", "out", env=env)
            assert ran.code == 0, ran.err
            return sum(one.method == "GET" and one.path.partition("?")[0].endswith(".jsonl") for one in faults.seen)

        assert reads() > 0
        assert reads() == 0
        store.put("in/rows.jsonl", b'{"id": 2}\n' * 1000)
        cli("write", f"s3://{s3_bucket}/in/rows.jsonl", "out", env=env).failed(8, "other data")


@pytest.mark.parametrize("where", ["disk", "s3"])
@pytest.mark.parametrize("runs", [2, 8])
def test_identical_runs_at_once(
    cli: Cli, tmp_path: Path, where: str, runs: int, s3_bucket: str, s3_env: dict[str, str]
) -> None:
    lines(tmp_path / "rows.jsonl", 3000)
    dest = "out" if where == "disk" else f"s3://{s3_bucket}/out"
    line = [COMMAND, "write", "rows.jsonl", dest, "--max-count", "200"]
    env = environment(tmp_path / "home", s3_env)
    racers = [
        subprocess.Popen(line, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(runs)
    ]
    told = [racer.communicate(timeout=120)[1] for racer in racers]
    # Whoever comes while the marks are being removed may be told to try again; then it finds that all is there.
    assert {racer.returncode for racer in racers} <= {0, 5}, told
    assert cli("write", "rows.jsonl", dest, "--max-count", "200", env=s3_env).code == 0
    assert cli("inspect", dest, "--verify", env=s3_env).code == 0
    assert cli("write", "rows.jsonl", "alone", "--max-count", "200").code == 0
    if where == "disk":
        assert tree(tmp_path / "out") == tree(tmp_path / "alone")


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_different_runs_at_once(cli: Cli, tmp_path: Path, where: str, s3_bucket: str, s3_env: dict[str, str]) -> None:
    lines(tmp_path / "rows.jsonl", 3000)
    dest = "out" if where == "disk" else f"s3://{s3_bucket}/out"
    env = environment(tmp_path / "home", s3_env)
    racers = [
        subprocess.Popen(
            [COMMAND, "write", "rows.jsonl", dest, "--max-count", str(count)],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for count in (200, 300)
    ]
    told = [racer.communicate(timeout=120) for racer in racers]
    assert sorted(racer.returncode for racer in racers) == [0, 8], told
    assert cli("inspect", dest, "--verify", env=s3_env).code == 0


def test_abort(cli: Cli, tmp_path: Path) -> None:
    lines(tmp_path / "rows.jsonl", 10)
    assert cli("write", "rows.jsonl", "out", "--max-count", "4").code == 0
    (tmp_path / "out" / "manifest.json").unlink()
    (tmp_path / "out" / ".atdata").mkdir()
    (tmp_path / "out" / ".atdata" / "job.json").write_text('{"job": "another"}')
    ran = cli("write", "rows.jsonl", "out", "--max-count", "4")
    ran.failed(8, "another job's unfinished", "atdata-cli abort out)")
    would = cli("abort", "out", "-n")
    assert would.lines == [f"out/shard-00000{n}.tar" for n in range(3)]
    done = cli("abort", "out", "--json").document
    assert done == {"status": "removed", "removed": would.lines}
    assert tree(tmp_path / "out") == {}
    nothing = cli("abort", "out")
    assert (nothing.out, nothing.err) == ("", "nothing to remove\n")
    cli("prune", "out").failed(3, "no dataset")
