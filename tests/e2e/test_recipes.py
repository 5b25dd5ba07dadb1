"""The recipes of atdata-cli-recipes(7), run as they stand there."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import functools
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import COMMAND, environment
from tests.conftest import common_folder
from tests.distribution import Distribution
from tests.servers.seaweed import S3Server, filesystem, make_bucket
from tests.servers.terminal import search_path

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "man" / "man7" / "atdata-cli-recipes.7").read_text(encoding="utf-8")
SPECIAL = {"\\-": "-", "\\(aq": "'", "\\(dq": '"', "\\(ga": "`", "\\(ha": "^", "\\(ti": "~", "\\e": "\\", "\\&": ""}


def recipes(heading: str) -> list[str]:
    """What stands under a heading, as it is read."""
    section = PAGE.split(f".SS {heading}\n")[1].split("\n.SS ")[0]
    blocks = re.findall(r"^\.EX\n(.*?)\n\.EE$", section, re.MULTILINE | re.DOTALL)
    assert blocks
    return [re.sub(r"\\(?:\(..|.)", lambda match: SPECIAL[match[0]], block) for block in blocks]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with photos and rows; it is HOME, too."""
    for number in range(6):
        photo = tmp_path / "photos" / f"a {number}.jpg"
        photo.parent.mkdir(exist_ok=True)
        photo.write_bytes(b"\xff\xd8" + bytes([number]) * 100)
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    return tmp_path


@pytest.fixture
def env(here: Path) -> dict[str, str]:
    return environment(here) | {"PATH": search_path(COMMAND)}


@pytest.fixture
def my_bucket(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[S3Server]:
    """The bucket has the name that is in the page: of all workers of a test run one has it at a time.

    It is never deleted: a server may still know a bucket that is gone.
    """
    with (common_folder(tmp_path_factory, worker_id) / "my-bucket.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileExistsError):
            make_bucket(s3_server, "my-bucket")
        yield s3_server


@pytest.fixture
def bucket(here: Path, my_bucket: S3Server) -> Iterator[Any]:
    """The bucket of the page, on the test's server; the credentials are in the home's files."""
    (here / ".aws").mkdir()
    (here / ".aws" / "config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {my_bucket.endpoint}\n")
    (here / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = {my_bucket.key}\naws_secret_access_key = {my_bucket.secret}\n"
    )
    files = filesystem(my_bucket)
    yield files
    files.invalidate_cache()
    if files.exists("my-bucket/photos"):
        files.rm("my-bucket/photos", recursive=True)


def sh(script: str, cwd: Path, env: dict[str, str], shell: str = "sh") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, "-e", "-c", script], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_in_a_shell(here, env):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(here)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env |= {"URL": f"http://127.0.0.1:{server.server_port}/rows.jsonl"}
    try:
        for number, line in enumerate(recipes("In a shell")):
            ran = sh(line, here, env)
            assert ran.returncode == 0, (line, ran.stderr)
            if number == 2:  # the same rows by other means
                assert "unchanged" in ran.stderr
                shutil.rmtree(here / "rows")
                env["URL"] += ".nowhere"
                ran = sh(line, here, env)
                assert ran.returncode != 0
                assert not (here / "rows" / "manifest.json").exists()
    finally:
        server.shutdown()
        server.server_close()
    assert sh("atdata-cli inspect chosen --json", here, env).returncode == 0
    assert sh(recipes("In a shell")[-1], here, env).stdout.endswith("nothing new\n")


def test_in_a_makefile(here, env):
    makefile = recipes("In a Makefile")[0]
    (here / "Makefile").write_text(makefile + "\n")

    def made() -> set[str]:
        ran = subprocess.run(["make", "-j2"], cwd=here, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert subprocess.run(["make", "-q"], cwd=here, env=env, capture_output=True, check=False).returncode == 0
        return set(re.findall(r"--depfile shards/(\w+)\.d", ran.stdout))

    assert made() == {"photos", "rows"}
    assert made() == set()
    time.sleep(0.02)
    (here / "photos" / "new.jpg").write_bytes(b"\xff\xd8")
    assert made() == {"photos"}
    (here / "rows.jsonl").write_text('{"a": 3}\n')
    assert made() == {"rows"}
    (here / "photos" / "new.jpg").unlink()
    assert made() == {"photos"}
    assert made() == set()


def test_a_dataset_elsewhere_has_a_stamp(here, env, bucket):
    (here / "Makefile").write_text(recipes("In a Makefile")[1] + "\n")

    def made() -> bool:
        ran = subprocess.run(["make"], cwd=here, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return "atdata-cli write" in ran.stdout

    assert (made(), made()) == (True, False)
    time.sleep(0.02)
    (here / "photos" / "a 0.jpg").write_bytes(b"\xff\xd8")
    assert (made(), made()) == (True, False)
    (here / "photos" / "a 0.jpg").unlink()
    assert (made(), made()) == (True, False)
    assert b'"samples": 5' in bucket.cat("my-bucket/photos/manifest.json")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment."""
    folder = tmp_path_factory.mktemp("python") / "py"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def runner(here: Path, env: dict[str, str], built: Distribution, python: Path) -> dict[str, str]:
    """What a CI system's machine has: Python, and an index in which there is this program alone."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    return env | {
        "PATH": f"{python}/bin:/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_FIND_LINKS": str(built.wheel.parent),
        "PIP_IGNORE_INSTALLED": "1",  # on PYTHONPATH
        "PYTHONPATH": packages,  # what it depends on
        "RUNNER_TEMP": str(here),
        "GITHUB_PATH": str(here / "path"),
        "GITHUB_STEP_SUMMARY": str(here / "summary"),
        "CI": "true",
    }


def filled(text: str, values: dict[str, str]) -> str:
    """``${{ … }}`` as the service fills it in."""
    return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda match: values[match[1]], text)


def test_in_github_actions(here, runner, bucket, s3_server):
    workflow, _ = recipes("In GitHub Actions")
    job = yaml.safe_load(workflow)["jobs"]["dataset"]
    values = {
        "secrets.AWS_ACCESS_KEY_ID": s3_server.key,
        "secrets.AWS_SECRET_ACCESS_KEY": s3_server.secret,
        "vars.AWS_ENDPOINT_URL": s3_server.endpoint,
    }
    env = runner | {name: filled(value, values) for name, value in job["env"].items()}
    lines = [filled(step["run"], values) for step in job["steps"] if "run" in step]
    assert len(lines) == 4
    for line in lines:
        ran = sh(line, here, env, "bash")
        assert ran.returncode == 0, (line, ran.stdout, ran.stderr)
        assert "\x1b" not in ran.stdout + ran.stderr
    assert (here / "summary").read_text() == "samples: 6\n"
    assert "my-bucket/photos/manifest.json" in bucket.find("my-bucket")


def test_the_composite_action(here, runner):
    action = yaml.safe_load((REPOSITORY / "action.yml").read_text())
    ((step,),) = (yaml.safe_load(block) for block in recipes("In GitHub Actions")[1:])
    assert step["uses"].partition("@")[0] == "OWNER/atdata-cli"
    assert step["with"].keys() <= action["inputs"].keys()
    given = {name: told["default"] for name, told in action["inputs"].items()} | step["with"]
    values = {f"inputs.{name}": value for name, value in given.items()}
    for step in action["runs"]["steps"]:
        env = runner | {name: filled(value, values) for name, value in step.get("env", {}).items()}
        ran = sh(step["run"], here, env, step["shell"])
        assert ran.returncode == 0, ran.stderr
    path = (here / "path").read_text().strip()
    ran = sh("atdata-cli write photos out", here, runner | {"PATH": f"{path}:/usr/bin:/bin"})
    assert ran.returncode == 0, ran.stderr


def test_in_gitlab(here, runner, bucket):
    (text,) = recipes("In GitLab CI")
    job = yaml.safe_load(text)["dataset"]
    for line in job["script"]:
        ran = sh(line, here, runner | job["variables"])
        assert ran.returncode == 0, (line, ran.stdout, ran.stderr)
    assert all((here / path).exists() for path in job["artifacts"]["paths"])


def test_from_cron(here, bucket):
    """As cron runs it: HOME, the PATH of the line, nothing else; quiet while all is well, runs that overlap, too."""
    (table,) = recipes("From cron")
    variable, line = table.splitlines()
    assert variable.startswith("PATH=")
    schedule = re.fullmatch(r"((?:\S+ ){5})(.*)", line)
    assert schedule is not None
    assert "%" not in schedule[2], "cron takes it for a line break"
    env = {"HOME": str(here), "PATH": f"{COMMAND.parent}:{variable[5:]}"}
    for _ in range(2):
        ran = sh(schedule[2], here, env)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    running = [subprocess.Popen(["sh", "-c", schedule[2]], cwd=here, env=env) for _ in range(2)]
    assert 0 in [one.wait(60) for one in running]
    (here / "photos" / "a.jpg").write_text("1")
    (here / "photos" / "a.JPG").write_text("2")
    ran = sh(schedule[2], here, env)
    assert ran.returncode == 1
    assert "differ only by case" in ran.stderr


def test_from_a_timer(here, bucket):
    service, timer = recipes("From a systemd timer")
    units = {"photos.service": service, "photos.timer": timer}
    for name, text in units.items():
        (here / name).write_text(text + "\n")
    # Not as the user's: for those it wants a session, and looks at nothing without one.
    ran = subprocess.run(
        ["systemd-analyze", "verify", *(str(here / name) for name in units)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in ran.stderr.splitlines() if "photos" in line] == []
    assert ran.returncode == 0
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(service)
    told = unit["Service"]
    name, _, value = told["Environment"].partition("=")
    env = {"HOME": str(here), name: f"{COMMAND.parent}:{value}"}
    folder = told["WorkingDirectory"].replace("%h", str(here))
    ran = subprocess.run(shlex.split(told["ExecStart"]), cwd=folder, env=env, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


# What sbatch does with these two lines, on one machine and at once: SLURM itself takes a cluster.
SBATCH = """#!/bin/sh -e
for word; do
  case $word in
    --parsable) echo 1 ;;
    --wrap) wrapped=1 ;;
    --dependency=*) test "$word" = --dependency=afterok:1 ;;
    *) if [ -n "$wrapped" ]; then exec sh -c "$word"; fi; script=$word ;;
  esac
done
array() { sed -n "s/^#SBATCH --$2=//p" "$1"; }
first=$(array "$script" array | cut -d- -f1) last=$(array "$script" array | cut -d- -f2)
export SLURM_ARRAY_TASK_MIN=$first SLURM_ARRAY_TASK_STEP=1 SLURM_ARRAY_TASK_COUNT=$((last - first + 1))
export SLURM_CPUS_PER_TASK=$(array "$script" cpus-per-task)
for task in $(seq "$last" -1 "$first"); do
  SLURM_ARRAY_TASK_ID=$task sh -e "$script" >&2 &
  jobs="$jobs $!"
done
for job in $jobs; do wait "$job"; done
"""


def test_in_a_slurm_array(here, env, bucket):
    script, line = recipes("In a SLURM array")
    (here / "photos.sh").write_text(script + "\n")
    (here / "sbatch").write_text(SBATCH)
    (here / "sbatch").chmod(0o755)
    ran = sh(line, here, env | {"PATH": f"{here}:{env['PATH']}"})
    assert ran.returncode == 0, ran.stderr
    ran = sh("atdata-cli inspect s3://my-bucket/photos --json | jq .samples", here, env)
    assert ran.stdout == "6\n", ran.stderr


def test_in_training_code(here, env, bucket):
    assert sh("atdata-cli write -q photos s3://my-bucket/photos", here, env).returncode == 0
    for program in recipes("In training code"):
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=here,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (0, "6\n"), ran.stderr


def test_every_recipe_is_tested():
    headings = re.findall(r"^\.SS (.*)$", PAGE, re.MULTILINE)
    source = Path(__file__).read_text()
    assert all(f'recipes("{heading}")' in source for heading in headings)
    assert os.path.basename(__file__) == "test_recipes.py"
