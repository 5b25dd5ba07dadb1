"""``write`` in another order, by several processes, and by several machines."""

from __future__ import annotations


def test_shuffled(cli, rows_file, tmp_path):
    orders = {}
    for name, options in {"a": ["--seed", "3"], "b": ["--seed", "3", "--jobs", "2"], "c": []}.items():
        ran = cli("write", str(rows_file), str(tmp_path / name), "--shuffle", *options)
        assert ran.code == 0, ran.err
        orders[name] = (tmp_path / name / "shard-000000.tar").read_bytes()
    assert orders["a"] == orders["b"] != orders["c"]
    slip = cli("write", str(rows_file), str(tmp_path / "d"), "--seed", "3")
    assert slip.code == 2
    assert "--shuffle" in slip.err
