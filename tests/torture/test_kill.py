"""``kill -9`` after any number of bytes: the same command again comes to what an undisturbed run comes to.

Kills are at byte counts: of what the run writes into files (``inside/sitecustomize.py`` counts and kills), or sends to
S3 (the proxy does). What is killed may be killed again on its second run. In between nobody is told that the dataset is
complete unless it is; at the end there is no temporary file, no unfinished upload and no mark; what a state says is
finished is neither written nor sent a second time.
"""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atdata_cli import S3DataStore
from atdata_cli.stores.testing import pattern
from tests.cli.test_write import tree
from tests.cli.test_write_s3 import objects
from tests.e2e.test_interrupts import uploads
from tests.servers.faults import FaultyProxy
from tests.servers.seaweed import S3Server
from tests.torture.conftest import JOBS
from tests.torture.runs import Tool

NEVER = 1 << 60


@dataclass(frozen=True)
class Case:
    """What is run and killed.

    Attributes
    ----------
    make : makes the source, as it is (True) after what an update updates (False).
    arguments : of ``write`` besides DEST.
    updates : whether there is a dataset before.
    stdin : a file.
    points : how many kills here, and in the long campaign, on disk and in S3 each.
    """

    make: Callable[[Path, bool], None]
    arguments: tuple[str, ...]
    updates: bool = False
    stdin: str | None = None
    points: tuple[int, int] = (1, 15)


def files(folder: Path, new: bool) -> None:
    """12 samples of 1.6 MB: with four a shard, three shards of two parts of an upload each."""
    for number in range(12):
        (folder / "src").mkdir(exist_ok=True)
        (folder / "src" / f"{number:02d}.bin").write_bytes(pattern(1_600_000 + number, seed=number))


def rows(folder: Path, new: bool) -> None:
    """900 rows, and 150 more when new, of which one in the middle is another."""
    with (folder / "rows.jsonl").open("w") as lines:
        for number in range(1050 if new else 900):
            text = "changed" if new and number == 450 else f"text {number:08d}" * 40
            lines.write(json.dumps({"id": number, "text": text}) + "\n")


LIMIT = ("--max-count", "200")
SPLIT = ("--split", "a=0.5,b=0.5")
UPDATE = ("--if-exists", "update")
CASES = {
    "files": Case(files, ("src", "--max-count", "4"), points=(3, 40)),
    "update": Case(rows, ("rows.jsonl", *LIMIT, *UPDATE), True, points=(1, 25)),
    "splits": Case(rows, ("rows.jsonl", *LIMIT, *SPLIT, *UPDATE), True, points=(1, 20)),
    "stream": Case(rows, ("-", "--from", "jsonl", *LIMIT, "--name", "rows"), stdin="rows.jsonl"),
}


class Disk:
    """The destination is a folder."""

    options: tuple[str, ...] = ()

    def __init__(self, tool: Tool) -> None:
        self.tool = tool

    def dest(self, name: str) -> str:
        return name

    def put(self, name: str, whole: dict[str, bytes]) -> None:
        for relative, data in whole.items():
            path = self.tool.folder / name / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def held(self, name: str) -> dict[str, bytes]:
        return tree(self.tool.folder / name) if (self.tool.folder / name).exists() else {}

    def finished(self, name: str, shards: set[str]) -> Any:
        stats = {shard: (self.tool.folder / name / shard).stat() for shard in shards}
        return {shard: (info.st_ino, info.st_mtime_ns) for shard, info in stats.items()}

    def check_not_again(self, name: str, shards: set[str], before: Any) -> None:
        assert self.finished(name, shards) == before

    def check_clean(self, name: str) -> None:
        """A tree of files sees everything but folders; only the last step can leave that of the state, empty."""
        state = self.tool.folder / name / ".atdata"
        assert not state.exists() or not list(state.iterdir())

    def total(self, run: Callable[[dict[str, str]], None]) -> int:
        variables = self.tool.kill_at(NEVER)
        run(variables)
        return self.tool.counted(variables)

    def killed(self, point: int, arguments: tuple[Any, ...], stdin: Path | None) -> int:
        return self.tool(*arguments, env=self.tool.kill_at(point), stdin=stdin).code


class S3:
    """The destination is a prefix in S3, behind a proxy."""

    options = ("-o", "part_size=5M")

    def __init__(self, tool: Tool, proxy: FaultyProxy, server: S3Server, store: S3DataStore) -> None:
        tool.env = {**tool.env, "AWS_ENDPOINT_URL": proxy.url}
        self.tool, self.proxy, self.server, self.store = tool, proxy, server, store

    def dest(self, name: str) -> str:
        return f"s3://{self.store.bucket}/{name}"

    def put(self, name: str, whole: dict[str, bytes]) -> None:
        for relative, data in whole.items():
            self.store.put(f"{name}/{relative}", data)

    def held(self, name: str) -> dict[str, bytes]:
        self.tool.secrets.check_objects(self.store, name)
        return objects(self.store, name)

    def finished(self, name: str, shards: set[str]) -> Any:
        return len(self.proxy.log)

    def check_not_again(self, name: str, shards: set[str], before: Any) -> None:
        sent = [one.path.partition("?")[0] for one in self.proxy.log[before:] if one.method in ("PUT", "POST")]
        assert not [path for path in sent if path.partition(f"/{name}/")[2] in shards]

    def check_clean(self, name: str) -> None:
        assert uploads(self.server, self.store.bucket) == []

    def total(self, run: Callable[[dict[str, str]], None]) -> int:
        self.proxy.at(NEVER, lambda: None)
        run({})
        return self.proxy.passed

    def killed(self, point: int, arguments: tuple[Any, ...], stdin: Path | None) -> int:
        started = threading.Event()
        running = None

        def kill() -> None:
            started.wait()
            assert running is not None
            running.kill()
            running.process.wait()

        self.proxy.at(point, kill)
        running = self.tool.start(*arguments, stdin=stdin)
        started.set()
        code = running.wait().code
        self.proxy.at(NEVER, lambda: None)
        return code


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tool: Tool) -> Iterator[Disk | S3]:
    if request.param == "disk":
        yield Disk(tool)
    else:
        yield S3(tool, *(request.getfixturevalue(name) for name in ("proxy", "s3_server", "store")))


def campaigns() -> Iterator[Any]:
    for jobs in JOBS:
        for name, case in CASES.items():
            few, many = case.points
            label = "-".join((name, *jobs[1:]))
            if not jobs or name in ("files", "update"):
                yield pytest.param(name, jobs, 1 if jobs else few, 0, id=label)
            for seed, count in enumerate([10] * (many // 10) + [many % 10], start=1):
                if count:
                    yield pytest.param(name, jobs, count, seed, id=f"{label}-{seed}", marks=pytest.mark.torture)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "jobs", "count", "seed"), list(campaigns()))
def test_killed_and_repeated(place: Disk | S3, tool: Tool, name: str, jobs: tuple[str, ...], count: int, seed: int):
    case = CASES[name]
    arguments = ("write", *case.arguments[:1], "DEST", *case.arguments[1:], *place.options, *jobs)
    stdin = None if case.stdin is None else tool.folder / case.stdin

    def line(dest: str) -> tuple[str, ...]:
        return tuple(place.dest(dest) if word == "DEST" else word for word in arguments)

    def run(dest: str, env: dict[str, str] | None = None) -> None:
        ran = tool(*line(dest), env=env, stdin=stdin)
        assert ran.code == 0, ran.err

    base: dict[str, bytes] = {}
    if case.updates:
        case.make(tool.folder, False)
        run("base")
        base = place.held("base")
    case.make(tool.folder, True)
    place.put("whole", base)
    total = place.total(lambda env: run("whole", env))
    whole = place.held("whole")
    chance = random.Random(f"{name} {type(place).__name__} {seed}")
    for number in range(count):
        place.put(f"out{number}", base)
        points = [chance.randrange(1, total)]
        if chance.random() < 0.3:
            points.append(chance.randrange(1, total))
        _check(place, tool, line(f"out{number}"), stdin, f"out{number}", points, base, whole)
        if isinstance(place, Disk):
            shutil.rmtree(tool.folder / f"out{number}")


def _check(
    place: Disk | S3,
    tool: Tool,
    line: tuple[str, ...],
    stdin: Path | None,
    name: str,
    points: list[int],
    base: dict[str, bytes],
    whole: dict[str, bytes],
) -> None:
    """Kill at the points, one after another, then let it end."""
    told = f"killed at {points}"
    for point in points:
        code = place.killed(point, line, stdin)
        assert code in (-9, 0), (told, code)
        held = place.held(name)
        checked = tool("inspect", line[2] if "://" in line[2] else name, "--verify")
        if checked.code == 0:
            assert held["manifest.json"] in (base.get("manifest.json"), whole["manifest.json"]), told
        else:
            assert (checked.code, base) in ((6, {}), (3, {})), (told, checked.err)
        noted = _noted(held)
        before = place.finished(name, noted)
    ran = tool(*line, stdin=stdin)
    assert ran.code == 0, (told, ran.err)
    place.check_not_again(name, noted, before)
    assert _differing(place.held(name), whole) == [], told
    place.check_clean(name)
    assert tool("inspect", line[2], "--verify").code == 0, told


def _noted(held: dict[str, bytes]) -> set[str]:
    """The shards that the state calls finished."""
    noted = set()
    for name, text in held.items():
        folder, slash, _ = name.removeprefix(".atdata/shards/").rpartition("/")
        if name.startswith(".atdata/shards/") and name.endswith(".json"):
            shard = folder + slash + json.loads(text)["name"]
            if shard in held:
                noted.add(shard)
    return noted


def _differing(here: dict[str, bytes], whole: dict[str, bytes]) -> list[str]:
    return sorted(name for name in {*here, *whole} if here.get(name) != whole.get(name))
