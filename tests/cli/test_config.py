"""What a person need not type: the environment, the project's file, the user's file, named stores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from atdata_cli.cli import parser
from atdata_cli.cli.app import COMMANDS
from atdata_cli.config import RIVALS, SETTINGS
from tests.cli.conftest import Cli, rows


def user_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "home" / ".config" / "atdata-cli" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def shards(cli: Cli, *options: str, env: dict[str, str] | None = None) -> int:
    """How many shards a plan for 2,500 rows has."""
    ran = cli("write", "rows.jsonl", "out", "-n", "--json", *options, env=env)
    assert ran.code == 0, ran.err
    return len(ran.document["shards"])


def test_every_setting_is_an_option_of_its_commands():
    group = parser._Commands()
    options = {name: {o for p in group.load(name).params for o in p.opts} for name in COMMANDS}
    for setting in SETTINGS.values():
        having = setting.commands or [name for name in COMMANDS if f"--{setting.name}" in options[name]]
        assert having
        assert all(f"--{setting.name}" in options[name] for name in having), setting
        assert not setting.project or set(setting.commands) <= {"write", "publish"}
    assert {name for group in RIVALS for names in group for name in names} <= set(SETTINGS)


def test_flag_over_environment_over_project_over_user(cli, tmp_path, rows_file):
    assert shards(cli) == 1
    path = user_file(tmp_path, "[write]\nmax-count = 100\n")
    assert shards(cli) == 25
    (tmp_path / "atdata.toml").write_text("[write]\nmax-count = 250\n")
    assert shards(cli) == 10
    variable = {"ATDATA_CLI_MAX_COUNT": "500"}
    assert shards(cli, env=variable) == 5
    assert shards(cli, "--max-count", "1250", env=variable) == 2
    # An alternative that is typed puts out what a file says.
    assert shards(cli, "--shards", "3", env=variable) == 3
    told = {one["name"]: one for one in cli("config", "--json", env=variable).document["settings"]}
    assert told["max-count"]["value"] == "500"
    assert told["max-count"]["origin"] == "ATDATA_CLI_MAX_COUNT"
    document = cli("config", "--json").document
    assert document["files"]["user"] == {"path": str(path), "exists": True}
    assert document["files"]["project"]["path"].endswith("/atdata.toml")


def test_a_projects_file_is_found_from_below_in_its_repository_only(cli, tmp_path, rows_file):
    (tmp_path / "atdata.toml").write_text("[write]\nmax-count = 250\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    ran = cli("write", rows_file, "out", "-n", "--json", cwd=below)
    assert len(ran.document["shards"]) == 1
    (tmp_path / ".git").mkdir()
    ran = cli("write", rows_file, "out", "-n", "--json", cwd=below)
    assert len(ran.document["shards"]) == 10


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('endpoint-url = "http://evil.example"', "'endpoint-url' cannot be there"),
        ('[write]\nendpoint-url = "http://evil.example"', "'endpoint-url' cannot be there"),
        ('[stores.prod]\nurl = "s3://evil/"', "'stores' cannot be there"),
        ('[write]\nembed-root = "/"', "'embed-root' is no setting"),
        ("[write]\nmax-cuont = 1", "did you mean 'max-count'?"),
        ('[write]\nschema = "/etc/passwd"', "in its folder"),
        ('[write]\nschema = "../x"', "in its folder"),
        ('[write]\nmax-count = "many"', "it is a number"),
        ("[write", "is not TOML"),
    ],
)
def test_what_a_projects_file_may_not_say(cli, tmp_path, rows_file, text, word):
    (tmp_path / "atdata.toml").write_text(text)
    cli("write", "rows.jsonl", "out").failed(2, word, "atdata.toml")
    # It is nothing to the other commands.
    assert cli("inspect", "rows.jsonl.tar").code == 3
    assert word in cli("config", "--json").document["files"]["project"]["problem"]
    (row,) = [line for line in cli("config").lines if line.startswith("project file\t")]
    assert "\tnot used: " in row
    assert word in row


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[wirte]\nmax-count = 1", "did you mean 'write'?"),
        ("max-count = 1", "[write]"),
        ('[stores.s3]\nurl = "/x"', "is a scheme"),
        ('[stores.gs]\nurl = "/x"', "is a scheme"),
        ('[stores.pipe]\nurl = "/x"', "is a scheme"),
        ('[stores.prod]\nurl = "folder"', "whole path"),
        ('[stores.prod]\nurl = "/x"\nsecret = "y"', "'secret' is not known"),
        ("stores = 1", "[stores.NAME]"),
    ],
)
def test_mistakes_in_the_users_file_are_explained(cli, tmp_path, rows_file, text, word):
    user_file(tmp_path, text)
    cli("write", "rows.jsonl", "out").failed(2, word, "config.toml")


def test_another_file_instead_of_the_users(cli, tmp_path, rows_file):
    user_file(tmp_path, "[write]\nmax-count = 100\n")
    (tmp_path / "other.toml").write_text("[write]\nmax-count = 500\n")
    assert shards(cli, "--config", "other.toml") == 5
    assert shards(cli, env={"ATDATA_CLI_CONFIG": "other.toml"}) == 5
    assert shards(cli, "--config", "/dev/null") == 1
    cli("write", "rows.jsonl", "out", "--config", "none.toml").failed(3, "none.toml")


def test_a_value_that_is_wrong_says_where_it_stands(cli, rows_file):
    ran = cli("write", "rows.jsonl", "out", env={"ATDATA_CLI_MAX_SIZE": "big"})
    assert ran.code == 2
    assert "(ATDATA_CLI_MAX_SIZE says so)" in ran.err
    ran = cli("write", "rows.jsonl", "out", env={"ATDATA_CLI_NO_INFER": "perhaps"})
    ran.failed(2, "ATDATA_CLI_NO_INFER")


def test_standard_variables_come_before_files(cli, tmp_path):
    user_file(tmp_path, 'endpoint-url = "http://file.example"\nretries = 2\n')
    env = {"AWS_ENDPOINT_URL": "http://env.example", "AWS_SECRET_ACCESS_KEY": "hush"}
    ran = cli("config", "--json", env=env)
    told = {one["name"]: (one["value"], one["origin"]) for one in ran.document["settings"]}
    assert told["endpoint-url"] == ("http://env.example", "AWS_ENDPOINT_URL")
    assert told["retries"] == (2, str(tmp_path / "home/.config/atdata-cli/config.toml"))
    assert ran.document["environment"]["AWS_SECRET_ACCESS_KEY"] == "***"
    assert "hush" not in ran.out + cli("config", env=env).out


def test_what_is_shown_is_what_holds(cli, tmp_path):
    def shown(**env: str) -> dict[str, tuple[str, str]]:
        rows = [line.split("\t") for line in cli("config", env=env).lines]
        return {name: (value, origin) for name, value, origin in rows}

    told = shown()
    assert told["write.jobs"] == ("the cores", "default")
    assert told["copy.jobs"] == ("4", "default")
    assert told["color"] == ("auto", "default")
    assert told["ca-bundle"][1] == "default"
    told = shown(SSL_CERT_FILE="/ca.pem", NO_COLOR="1")
    assert told["ca-bundle"] == ("/ca.pem", "SSL_CERT_FILE")
    assert told["color"] == ("never", "NO_COLOR")
    assert shown(FORCE_COLOR="1")["color"] == ("always", "FORCE_COLOR")
    path = user_file(tmp_path, 'ca-bundle = "/own.pem"\n[stores.prod]\nurl = "s3://b/x"\nprofile = "lab"\n')
    told = shown(SSL_CERT_FILE="/ca.pem")
    assert told["ca-bundle"] == ("/own.pem", str(path))
    assert told["prod:"] == ("s3://b/x profile=lab", str(path))


def test_secrets_of_named_stores_are_masked(cli, tmp_path):
    user_file(
        tmp_path,
        '[stores.prod]\nurl = "sftp://me:hush@host/x"\n[stores.prod.options]\npassword = "hush"\nport = 22\n',
    )
    for ran in (cli("config", "--json"), cli("config")):
        assert ran.code == 0
        assert "hush" not in ran.out
        assert "22" in ran.out


def test_a_named_folder(cli, tmp_path, rows_file):
    user_file(tmp_path, f'[stores.disk]\nurl = "{tmp_path}/sets"\n')
    ran = cli("write", "rows.jsonl", "disk:a/rows")
    assert ran.lines == [f"{tmp_path}/sets/a/rows/shard-000000.tar"]
    assert cli("copy", "disk:a/rows", "disk:b").code == 0
    assert cli("inspect", "disk:b", "--json").document["samples"] == 2500
    assert cli("resolve", "disk:b/manifest.json", "disk:a/rows").code == 0
    (tmp_path / "list").write_text("disk:b\n")
    assert cli("write", "--files-from", "list", "disk:c").code == 0
    assert cli("prune", "disk:c").code == 0
    cli("inspect", "disk:../rows.jsonl").failed(2, "'..'")
    cli("inspect", "disc:b").failed(2, "[stores.disc]")


def test_a_configuration_from_a_pipe_is_read_once(cli, tmp_path, rows_file):
    assert cli("write", rows_file, "sets/b").code == 0
    os.mkfifo(tmp_path / "pipe")
    text = f'[stores.disk]\nurl = "{tmp_path}/sets"\n'
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(text,), daemon=True)
    writer.start()
    assert "samples       2,500" in cli("inspect", "disk:b", env={"ATDATA_CLI_CONFIG": "pipe"}, timeout=20).out
    writer.join(20)


def test_a_named_store_on_a_server_that_nothing_else_names(cli, tmp_path, s3_server, s3_bucket, rows_file):
    keys = {"AWS_ACCESS_KEY_ID": s3_server.key, "AWS_SECRET_ACCESS_KEY": s3_server.secret}
    user_file(tmp_path, f'[stores.prod]\nurl = "s3://{s3_bucket}/sets"\nendpoint-url = "{s3_server.endpoint}"\n')
    ran = cli("write", "rows.jsonl", "prod:rows", env=keys)
    assert ran.lines == [f"s3://{s3_bucket}/sets/rows/shard-000000.tar"], ran.err
    assert cli("inspect", "prod:rows", "--verify", "-j", "2", env=keys).code == 0  # in processes of its own
    assert cli("copy", "prod:rows", "here", env=keys).code == 0
    assert cli("copy", "here", "prod:there", env=keys).code == 0
    assert cli("write", "prod:rows", "again", env=keys).code == 0
    assert s3_server.endpoint in cli("resolve", "prod:rows", env=keys).out
    # An entry that names the same server is read with its credentials.
    assert cli("publish", "prod:rows", "@local/rows", "--allow-local-url", env=keys).code == 0
    ran = cli("inspect", "@local/rows", "--verify", env=keys)
    assert ran.code == 0, ran.err
    assert "without credentials" not in ran.err
    # What is typed counts more.
    cli("inspect", "prod:rows", "--endpoint-url", "http://127.0.0.1:9", "--retries", "0", env=keys).failed(5)


def test_no_file_no_toml_parser(tmp_path):
    line = ["inspect", "nothing"]
    program = f"import sys, atdata_cli.cli.app as a; sys.argv[1:] = {line!r}\ntry: a.main()\nfinally: "
    program += "sys.stderr.write(str('tomllib' in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"HOME": "/nowhere"}, capture_output=True, text=True
    )
    assert ran.stderr.endswith("False"), ran.stderr


def test_a_project_says_how_its_data_are_written(cli, tmp_path):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "properties": {"id": {"type": "integer"}}}))
    (tmp_path / "atdata.toml").write_text(
        '[write]\nschema = "schema.json"\nfields = "id,text"\nsplit = "train=0.5,val=0.5"\n'
    )
    ran = cli("write", "data.jsonl", "out", "--json")
    assert ran.code == 0, ran.err
    assert set(ran.document["splits"]) == {"train", "val"}
