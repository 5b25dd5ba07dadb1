"""Options that other tests have no need of: each does what its help says."""

from __future__ import annotations

import json
import re

from atdata_cli.cli.app import COMMANDS
from tests.servers.seaweed import filesystem


def test_profiles_regions_and_store_options_of_both_sides(cli, tmp_path, s3_server, s3_bucket, rows_file):
    (tmp_path / "aws").write_text(
        f"[profile lab]\nendpoint_url = {s3_server.endpoint}\n"
        f"aws_access_key_id={s3_server.key}\naws_secret_access_key={s3_server.secret}\n"
        f"[profile nobody]\nendpoint_url = {s3_server.endpoint}\naws_access_key_id=x\naws_secret_access_key=y\n"
    )
    env = {"AWS_CONFIG_FILE": str(tmp_path / "aws")}
    lab = ("--profile", "lab", "--region", "us-east-1")
    place = f"s3://{s3_bucket}/a"
    assert cli("write", "rows.jsonl", place, *lab, env=env).code == 0
    assert cli("inspect", place, *lab, env=env).code == 0
    assert cli("inspect", place, "--profile", "nobody", env=env).code == 4
    source = ("--source-profile", "lab", "--source-region", "us-east-1", "--source-store-option", "retries=2")
    ran = cli("copy", place, f"s3://{s3_bucket}/b", *source, "--profile", "nobody", env=env)
    assert ran.code == 4, ran.err
    assert cli("copy", place, "here", *source, env=env).code == 0
    assert cli("copy", place, f"s3://{s3_bucket}/b", *source, *lab, "-o", "part_size=5M", env=env).code == 0
    assert len(filesystem(s3_server).find(f"{s3_bucket}/b")) == 2
    cli("copy", place, "there", *source[:4], "--source-store-option", "no=1", env=env).failed(2, "option 'no'")


def test_nothing_outside_the_root_is_embedded(cli, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "secret.txt").write_text("hush")
    (tmp_path / "files" / "a.txt").write_text("A")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"file": "a.txt"}) + "\n")
    line = ("write", "rows.jsonl", "out", "--embed", "file", "--embed-root", "files")
    assert cli(*line).code == 0
    assert cli("inspect", "out", "--key", "0000000000", "--field", "txt").out == "A"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"file": "../secret.txt"}) + "\n")
    ran = cli(*line[:2], "other", *line[3:])
    assert ran.code == 1
    assert "hush" not in ran.err
    assert "'../secret.txt'" in ran.err


def test_every_command_has_the_common_options(cli):
    for command in COMMANDS:
        told = cli(command, "--help").out
        assert all(option in told for option in ("--json", "-q, --quiet", "-v, --verbose", "--color", "--config")), told
    # What a command is asked for is printed all the same.
    assert cli("stores", "-q").out == cli("stores", "-v").out != ""
    assert cli("config", "-q").lines


def test_verbose_says_more(cli, rows_file):
    ran = cli("write", "rows.jsonl", "out", "--verbose")
    assert ran.code == 0
    assert re.search(r"^[0-9a-f]{64}  2500  ", ran.err, re.MULTILINE)
    assert not re.search(r"[0-9a-f]{64}", cli("write", "rows.jsonl", "again").err)


def test_the_server_of_a_login_can_be_named(cli, pds_account, pds_server):
    env = {name: value for name, value in pds_account.env.items() if name != "ATDATA_PDS_URL"}
    ran = cli("login", pds_account.handle, "--pds", pds_account.env["ATDATA_PDS_URL"], "--json", env=env)
    assert ran.code == 0, ran.err
    assert ran.document["pds"] == pds_account.env["ATDATA_PDS_URL"]
    assert cli("logout", env=env).code == 0
