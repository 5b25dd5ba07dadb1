"""The README's examples: run, and the output is what it says; what needs other people's servers is parsed."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from atdata_cli.cli.parser import app
from tests.cli.conftest import COMMAND, environment
from tests.servers.seaweed import make_bucket, remove_bucket

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
ELSEWHERE = re.compile(r"alice|example\.org|theirs|@HANDLE")

pytestmark = pytest.mark.xdist_group("readme")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def bash(script: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    env = environment(home, env) | {"PATH": f"{COMMAND.parent}:/usr/bin:/bin"}
    return subprocess.run(
        ["bash", "-c", f"exec 2>&1; {script}"],
        cwd=home,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_one_minute(tmp_path):
    """Each line after a prompt, and below it what it prints."""
    (session,) = [block for block in blocks("console") if "printf" in block]
    steps = re.findall(r"^\$ (.*\n(?:> .*\n)*)((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    assert len(steps) > 5
    for typed, printed in steps:
        line = typed.replace("\n> ", "\n").replace("python3", shlex.quote(sys.executable))
        ran = bash(line, tmp_path)
        assert ran.stdout.replace("\n\n", "\n") == printed, line


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """What the examples speak of."""
    pyarrow = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "photos").mkdir()
    names = [f"{number:02d}.jpg" for number in range(10)]
    for name in names:
        (tmp_path / "photos" / name).write_bytes(b"\xff\xd8" + name.encode())
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label"], *([name, "cat"] for name in names)])
    table = pyarrow.pa if hasattr(pyarrow, "pa") else __import__("pyarrow")
    pyarrow.write_table(table.table({"n": list(range(200))}), tmp_path / "table.parquet")
    rows = "".join(json.dumps({"n": number}) + "\n" for number in range(300))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "dump").write_text(rows)
    subprocess.run(["gzip", "-k", "dump"], cwd=tmp_path, check=True)
    return tmp_path


def lines() -> list[str]:
    """Every line of the shell examples, without its comment."""
    found = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in found if "atdata-cli" in line]


def test_every_line_of_the_shell_examples(material, s3_server):
    env = {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret,
        "AWS_REGION": "us-east-1",
    }
    make_bucket(s3_server, "bucket")
    try:
        ran = bash("atdata-cli write -q rows.jsonl others && mv others/shard-000000.tar others/000.tar", material)
        assert ran.returncode == 0, ran.stdout
        run = [line for line in lines() if not ELSEWHERE.search(line)]
        assert len(run) > 8
        for number, line in enumerate(run):
            line = re.sub(r"\bout/", f"out{number}/", line).replace("zstdcat dump.zst", "zcat dump.gz")
            line = line.replace("{000..099}", "{000..000}").replace("/scratch/", f"{material}/scratch/")
            if "--part 3/16" in line:  # of all parts, two are enough
                line = " && ".join(line.replace("3/16", part) for part in ("1/2", "2/2"))
            ran = bash(line, material, **env)
            assert ran.returncode == (7 if "skip" in line and "rejected" in ran.stdout else 0), (line, ran.stdout)
    finally:
        remove_bucket(s3_server, "bucket")


def test_lines_for_servers_of_others_are_understood():
    group = typer.main.get_command(app)
    parsed = [line for line in lines() if ELSEWHERE.search(line)]
    assert parsed
    for line in parsed:
        words = shlex.split(line)
        name, *arguments = words[words.index("atdata-cli") + 1 :]
        command = group.load(name)  # type: ignore[attr-defined]
        command.make_parser(typer.Context(command)).parse_args(arguments)  # type: ignore[attr-defined]


def test_what_the_python_examples_import_is_there():
    for block in blocks("python"):
        compile(block, "README.md", "exec")
        for line in re.findall(r"^(?:from|import) .*$", block, re.MULTILINE):
            subprocess.run([sys.executable, "-c", line], check=True)


def test_the_python_example_that_looks_at_datasets(material, monkeypatch, capsys):
    """As it is typed: what is not assigned is printed."""
    (block,) = [block for block in blocks("python") if "open_store" in block]
    made = "atdata-cli write -q rows.jsonl shards && atdata-cli write -q rows.jsonl o --shards 10"
    ran = bash(
        f"{made} && mkdir others && for n in 0 1 2 3 4 5 6 7 8 9; do mv o/*$n.tar others/00$n.tar; done", material
    )
    assert ran.returncode == 0, ran.stdout
    monkeypatch.chdir(material)
    scope: dict[str, object] = {}
    for line in filter(None, block.splitlines()):
        exec(compile(line, "README.md", "single"), scope)
    names, samples, fields, problems = capsys.readouterr().out.splitlines()
    assert sorted(ast.literal_eval(names)) == ["shards/manifest.json", "shards/shard-000000.tar"]
    assert (samples, problems) == ("300", "()")
    assert "'n'" in fields


def test_links_lead_somewhere():
    anchors = {
        re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (REPOSITORY / target).exists(), target
    assert os.path.getsize(REPOSITORY / "docs" / "terminal.svg") < 100_000
    assert "http" not in re.sub(
        r"http://www\.w3\.org/\S+", "", (REPOSITORY / "docs" / "terminal.svg").read_text()
    ).replace("https://www.textualize.io", "")
