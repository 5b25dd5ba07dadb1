"""``atdata-cli inspect --verify``: nothing wrong says so, what is wrong is named and exits 6."""

from __future__ import annotations

import pytest


@pytest.fixture
def dataset(cli, rows_file) -> None:
    assert cli("write", "rows.jsonl", "out", "--max-count", "1000").code == 0


def test_an_undamaged_dataset(cli, dataset, tmp_path):
    ran = cli("inspect", "out", "--verify")
    assert (ran.code, ran.out) == (0, "")
    assert "verified 2,500 samples in 3 shards" in ran.err
    assert cli("inspect", "out", "--verify", "--json").document["problems"] == []


def test_damage_is_named(cli, dataset, tmp_path):
    shard = tmp_path / "out" / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[512 + 1024 * 10] ^= 0xFF  # in the payload of the eleventh sample
    shard.write_bytes(data)
    (tmp_path / "out" / "shard-000002.tar").unlink()
    ran = cli("inspect", "out", "--verify")
    assert ran.code == 6
    assert "Traceback" not in ran.err
    kinds = {line.split(":")[0] for line in ran.lines}
    assert {"hash", "missing-shard"} <= kinds
    document = cli("inspect", "out", "--verify", "--json")
    assert document.code == 6
    hashes = [problem for problem in document.document["problems"] if problem["kind"] == "hash"]
    assert [problem["shard"] for problem in hashes] == ["out/shard-000001.tar"]
    cli("inspect", "out", "--verify", "--head", "1").failed(2, "--verify")
