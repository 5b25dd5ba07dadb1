"""A bounded run of the fuzzer, from good inputs on; for longer ones see ``tests/fuzz/readers.py``."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import msgpack
import numpy as np
import pytest

from atdata_cli.samples.codec import array_to_bytes

ROOT = Path(__file__).parents[2]


def tars() -> list[bytes]:
    made = []
    for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=layout) as tar:
            for name in ("a.txt", "d/é.json", "n" * 90 + "/m.txt", *(f"{number}.bin" for number in range(20))):
                info = tarfile.TarInfo(name)
                info.size = len(name) % 7
                tar.addfile(info, io.BytesIO(bytes(info.size)))
        made.append(out.getvalue())
    return made


def rows() -> list[bytes]:
    array = array_to_bytes(np.arange(6, dtype="f4").reshape(2, 3))
    values = [{}, {"a": 1, "b": [1.5, None, True, "é"]}, {"c": b"x" * 40, "d": {"e": [{}, -1, 2**63]}}, {"f": array}]
    return [msgpack.packb(value) for value in values]


@pytest.mark.parametrize(("target", "seeds", "runs"), [("tar", tars, 4000), ("msgpack", rows, 40_000)])
def test_no_input_breaks_a_reader(tmp_path, target, seeds, runs):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / str(number)).write_bytes(seed)
    limits = [
        "-verbosity=0",
        "-print_final_stats=1",
        f"-runs={runs}",
        "-seed=1",
        "-max_len=30000",
        "-timeout=60",
        "-rss_limit_mb=600",
    ]
    # By a shell, as a process's peak memory, which the fuzzer limits, begins with that of the process that starts it.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    ran = subprocess.run(
        [
            *shell,
            sys.executable,
            "-m",
            "tests.fuzz.readers",
            target,
            *limits,
            f"-artifact_prefix={tmp_path}/",
            str(corpus),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert f"stat::number_of_executed_units: {runs}" in ran.stderr, ran.stderr[-3000:]
