"""Memory does not grow with the data, and a write to S3 needs no disk at all.

Each case runs the installed command on two inputs of which one is eight times the other. What a run may need is
known: an interpreter with its libraries (60 to 80 MB), four buffers of 8 MiB on the way to the store, and for S3
seven parts of 16 MiB. All of that is allowed, anything that grows with the input is not.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atdata_cli.stores.s3_upload import PART_SIZE, PARTS_HELD
from tests.cli.conftest import COMMAND, environment
from tests.measure import peak

MB = 10**6
MIB = 1 << 20
FACTOR = 8
MOST = 300 * MB
# Allocators keep some of what they had, and buffers overlap by chance: it differs by 20 MB from run to run.
GROWTH = 60 * MB

Measured = Callable[..., int]


@pytest.fixture
def measured(tmp_path: Path, s3_env: dict[str, str]) -> Measured:
    """Run the command to its end in *tmp_path*; its peak memory in bytes."""
    home, temporary, result = tmp_path / "home", tmp_path / "temporary", tmp_path / ".peak"
    home.mkdir()
    temporary.mkdir()
    env = environment(home, {**s3_env, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"})

    def run(*arguments: str, file_limit: int | None = None) -> int:
        most, _ = peak(result, COMMAND, *arguments, file_limit=file_limit, cwd=tmp_path, env=env)
        assert not list(temporary.iterdir())
        return most

    return run


@pytest.fixture(params=["disk", "s3"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What the names of outputs begin with."""
    yield "out/" if request.param == "disk" else f"s3://{request.getfixturevalue('s3_bucket')}/"
    # Half a gigabyte, which pytest would keep for three more runs.
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def compare(measured: Measured, destination: str, sizes: list[str], growth: int = GROWTH) -> None:
    """Write the small and the large source of *sizes*; writes to S3 may put no byte into any file."""
    limit = 0 if destination.startswith("s3:") else None
    small, large = (measured("write", name, f"{destination}{name}", file_limit=limit) for name in sizes)
    print(f"peak memory: {small / MB:.0f} MB, with {FACTOR} times the input {large / MB:.0f} MB")
    assert large < MOST
    assert large - small < growth


def part_growth(destination: str, small: int) -> int:
    """How much more memory the larger run may take where the smaller one is less than all parts under way."""
    if not destination.startswith("s3:"):
        return GROWTH
    return GROWTH + max(0, (PARTS_HELD + 1) * PART_SIZE - small)


def write_lines(path: Path, lines: Iterator[str]) -> None:
    with path.open("w") as file:
        file.writelines(lines)


def test_many_rows(measured, destination, tmp_path):
    """In the shards each takes a kilobyte: 25 and 200 MB."""
    for count in (25_000, 25_000 * FACTOR):
        rows = (f'{{"id": {n}, "text": "the text of row {n}", "score": {n / 7!r}}}\n' for n in range(count))
        write_lines(tmp_path / f"{count}.jsonl", rows)
    compare(measured, destination, ["25000.jsonl", f"{25_000 * FACTOR}.jsonl"])


def test_many_members_in_one_shard(measured, destination, tmp_path):
    """Hard links to one sparse file are as cheap to make as they look large."""
    one = tmp_path / "one"
    with one.open("wb") as file:
        file.truncate(MIB)
    for count in (64, 64 * FACTOR):
        folder = tmp_path / f"members-{count}"
        folder.mkdir()
        for number in range(count):
            os.link(one, folder / f"{number:04d}.bin")
    compare(measured, destination, ["members-64", f"members-{64 * FACTOR}"], part_growth(destination, 64 * MIB))


def test_one_large_member(measured, destination, tmp_path):
    for size in (64, 64 * FACTOR):
        folder = tmp_path / f"member-{size}"
        folder.mkdir()
        with (folder / "large.bin").open("wb") as file:
            file.truncate(size * MIB)
    compare(measured, destination, ["member-64", f"member-{64 * FACTOR}"], part_growth(destination, 64 * MIB))


def test_keys_in_no_order_are_compared_with_all_others(measured, tmp_path):
    """A plan reads, encodes and compares as the run does; already the smaller one's keys do not all stay in memory."""
    generator = random.Random(0)
    for count in (260_000, 260_000 * FACTOR):
        rows = (f'{{"id": "{generator.getrandbits(128):032x}"}}\n' for _ in range(count))
        write_lines(tmp_path / f"{count}.jsonl", rows)
    peaks = [
        measured("write", f"{count}.jsonl", "out", "--key", "id", "--dry-run") for count in (260_000, 260_000 * FACTOR)
    ]
    print("peak memory:", [round(most / MB) for most in peaks])
    assert peaks[1] < MOST
    assert peaks[1] - peaks[0] < GROWTH
