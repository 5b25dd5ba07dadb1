"""Verifying against ``openssl dgst -sha256`` of the same files on as many cores: ``python -m tests.benchmarks.verify``.

The two run in turn, so that both see the same machine; the ratio is that of the medians of their wall times. Small
samples are also counted for each core, in one process. Workers import the main module again, so nothing heavy is
imported here at once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from atdata_cli.refs import parse
from atdata_cli.shards.forks import usable_cores
from atdata_cli.shards.reader import locate
from atdata_cli.shards.verify import VerifyReport, verify
from atdata_cli.stores.inputs import StoreFiles

ROUNDS = 5
SHARDS = 8
LARGE_BYTES = 3 << 30
SMALL_SAMPLES = 400_000


def make_large(folder: Path, size: int) -> None:
    """Members of one size, incompressible."""
    import webdataset

    payload = os.urandom(size)
    count = LARGE_BYTES // size // SHARDS
    for shard in range(SHARDS):
        with webdataset.TarWriter(str(folder / f"shard-{shard:06d}.tar"), encoder=False, mtime=0) as tar:
            for number in range(count):
                tar.write({"__key__": f"{shard * count + number:010d}", "bin": payload})


def make_small(folder: Path, packed: bool) -> None:
    """Small samples of one member each: packed rows, or text."""
    import msgpack
    import webdataset

    count = SMALL_SAMPLES // SHARDS
    for shard in range(SHARDS):
        with webdataset.TarWriter(str(folder / f"shard-{shard:06d}.tar"), encoder=False, mtime=0) as tar:
            for number in range(shard * count, shard * count + count):
                row = {"id": number, "text": f"row number {number}", "score": number / 7, "tags": ["a", "b"]}
                value = msgpack.packb(row) if packed else b"some text"
                tar.write({"__key__": f"{number:010d}", "msgpack" if packed else "txt": value})


def run_verify(folder: Path, jobs: int) -> VerifyReport:
    """Verify in this process or from it; interpreter and imports are not counted, starting workers is."""
    files = StoreFiles()
    report = verify(locate(parse(str(folder)), files), files, jobs=jobs)
    assert report.problems == ()
    return report


def run_openssl(folder: Path, jobs: int) -> None:
    """Hash each file in a process, *jobs* at a time."""
    names = b"\0".join(os.fsencode(path) for path in sorted(folder.iterdir()))
    line = ["xargs", "-0", "-P", str(jobs), "-n", "1", "openssl", "dgst", "-sha256"]
    subprocess.run(line, input=names, check=True, stdout=subprocess.DEVNULL)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one run."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compare(name: str, folder: Path, jobs: int) -> None:
    """Print one line: throughput of both, and the ratio."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(seconds(lambda: run_openssl(folder, jobs)))
        ours.append(seconds(lambda: run_verify(folder, jobs)))
    a, b = statistics.median(ours), statistics.median(theirs)
    best = min(theirs) / min(ours)
    rates = f"{size / a / 1e6:6.0f} MB/s, openssl {size / b / 1e6:6.0f} MB/s"
    print(f"{name:24} {jobs} jobs: {rates}, ratio {b / a:.2f} (best of each: {best:.2f})", flush=True)


def count(name: str, folder: Path) -> None:
    """Print one line: samples a second, by wall time and by processor time."""
    wall, cpu, samples = [], [], 0
    for _ in range(ROUNDS):
        begin = time.process_time()
        wall.append(seconds(lambda: run_verify(folder, 1)))
        cpu.append(time.process_time() - begin)
        samples = SMALL_SAMPLES
    rates = f"{samples / statistics.median(wall):,.0f}/s, {samples / statistics.median(cpu):,.0f} a processor second"
    print(f"{name:24} 1 job : {rates} (best {samples / min(cpu):,.0f})", flush=True)


def main() -> None:
    """Make the files, run, print."""
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as work:
        for size in (64 << 10, 1 << 20):
            folder = Path(work) / f"large-{size}"
            folder.mkdir()
            make_large(folder, size)
            compare(f"members of {size >> 10} KiB", folder, cores)
            subprocess.run(["rm", "-r", folder], check=True)
        for packed in (False, True):
            folder = Path(work) / f"small-{packed}"
            folder.mkdir()
            make_small(folder, packed)
            count("packed rows" if packed else "small text", folder)
            compare("packed rows" if packed else "small text", folder, cores)


if __name__ == "__main__":
    sys.exit(main())
