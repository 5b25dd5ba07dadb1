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


def test_parts(cli, rows_file, tmp_path):
    options = ["--name", "d", "--max-count", "400"]
    for number in ("2/2", "1/2"):
        ran = cli("write", str(rows_file), "parts", *options, "--part", number)
        assert ran.code == 0, ran.err
        assert "when all parts are done: atdata-cli commit parts" in ran.err
    again = cli("write", str(rows_file), "parts", *options, "--part", "1/2")
    assert "unchanged" in again.err
    assert "manifest.json" not in again.err
    early = cli("inspect", "parts")
    assert early.code == 6
    committed = cli("commit", "parts")
    assert committed.code == 0, committed.err
    assert len(committed.lines) == 7
    assert cli("write", str(rows_file), "whole", *options).code == 0
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "parts" / ".atdata").exists()
    assert cli("commit", "parts", "--json").document["status"] == "unchanged"


def test_parts_with_names_are_called_by_their_dest(cli, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"n": 1}\n')
        assert cli("write", f"{name}.jsonl", "in/all", "--part", name).code == 0
    assert cli("commit", "in/all").code == 0
    assert cli("inspect", "in/all", "--json").document["name"] == "all"


def test_parts_of_a_job_array(cli, rows_file):
    assert cli("write", str(rows_file), "out", "--part", "auto").code == 2
    for number in ("1", "2"):
        ran = cli("write", str(rows_file), "out", "--part", "auto", env={"CI_NODE_INDEX": number, "CI_NODE_TOTAL": "2"})
        assert ran.code == 0, ran.err
    assert cli("commit", "out").code == 0


def test_what_cannot_be_divided(cli, rows_file):
    ran = cli("write", "-", "out", "--from", "jsonl", "--part", "1/2", stdin=rows_file.read_bytes())
    assert ran.code == 2
    assert "--part NAME" in ran.err
    for option in (["--shuffle"], ["--split", "a=0.5,b=0.5"]):
        cli("write", str(rows_file), "out", "--part", "1/2", *option).failed(2, f"{option[0]} needs all of its rows")
    assert cli("commit", "out").code == 3
    assert cli("write", str(rows_file), "out", "--part", "1/2", "--prune").code == 2
