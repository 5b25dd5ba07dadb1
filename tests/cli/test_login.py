"""``atdata-cli login`` and ``logout`` against a real PDS."""

from __future__ import annotations

import os
import stat

from tests.cli.conftest import Cli
from tests.servers.pds import Account


def where(account: Account) -> dict[str, str]:
    """The server, but not who one is."""
    return {"ATDATA_PDS_URL": account.pds_url, "ATDATA_PLC_URL": account.plc_url}


def test_a_session_is_kept_used_and_ended(cli: Cli, rows_file, pds_account, tmp_path):
    env, handle = where(pds_account), pds_account.handle
    cli("write", rows_file, f"@{handle}/rows", env=env).failed(4, "not logged in")
    done = cli("login", handle, "--password-stdin", stdin=f"{pds_account.password}\n".encode(), env=env)
    assert (done.code, done.out) == (0, ""), done.err
    assert handle in done.err
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "lock" not in path.name]
    assert len(kept) == 1
    assert stat.S_IMODE(os.stat(kept[0]).st_mode) == 0o600
    assert pds_account.password not in kept[0].read_text()
    wrote = cli("write", rows_file, f"@{handle}/rows", env=env)
    assert wrote.code == 0, wrote.err
    assert cli("logout", env=env).code == 0
    assert not kept[0].exists()
    cli("write", rows_file, f"@{handle}/other", env=env).failed(4, "not logged in")
    cli("logout", env=env).failed(4, "not logged in")


def test_where_the_password_comes_from(cli: Cli, pds_account, tmp_path):
    env, handle = where(pds_account), f"@{pds_account.handle}"
    file = tmp_path / "password"
    file.write_text(f"{pds_account.password}\n")
    for arguments in (["--password-file", file], ["--password-command", f"cat {file}"]):
        ran = cli("login", handle, *arguments, "--json", env=env)
        assert ran.document == {"handle": handle[1:], "did": pds_account.did, "pds": pds_account.pds_url}
        assert pds_account.password not in ran.out + ran.err
    assert cli("login", handle, env={**env, "ATDATA_PASSWORD": pds_account.password}).code == 0


def test_what_cannot_log_in(cli: Cli, pds_account, tmp_path):
    env, handle = where(pds_account), pds_account.handle
    nowhere = {"ATDATA_PDS_URL": "http://127.0.0.1:9"}
    wrong = cli("login", handle, "--password-stdin", stdin=b"wrong-password\n", env=env)
    wrong.failed(4, f"{handle}: wrong handle or password (")
    assert "wrong-password" not in wrong.err
    assert "createSession" not in wrong.err
    gone = cli("login", handle, "--password-stdin", "--retries", "0", env=nowhere, stdin=b"x\n")
    gone.failed(5, "there is no connection to 127.0.0.1:9: Connection refused")
    assert "Errno" not in gone.err
    cli("login", handle, env=env).failed(2, "nobody is there")
    cli("login", handle, "--password-stdin", stdin=b"\n", env=env).failed(2, "empty")
    cli("login", handle, "--password-file", "gone", env=env).failed(3)
    cli("login", handle, "--password-command", "false", env=env).failed(4, "exit code 1")
    cli("login", handle, "--password-command", "true", "--password-stdin", env=env).failed(2, "exclude")
    cli("login", "nobody.test", "--password-stdin", stdin=b"x\n", env=env).failed(3, "nobody has the handle")


def test_what_login_found_is_read_by_the_same_handle(cli: Cli, rows_file, pds_account):
    """On a server of this machine, which nothing in the environment names."""
    handle, password = pds_account.handle, f"{pds_account.password}\n".encode()
    pds = ["--pds", pds_account.pds_url]
    done = cli("login", handle, *pds, "--password-stdin", stdin=password)
    assert done.code == 0, done.err
    wrote = cli("write", rows_file, f"@{handle}/rows")
    assert wrote.code == 0, wrote.err
    for account in (f"@{handle.upper()}", f"at://{pds_account.did}"):
        assert cli("resolve", f"{account}/rows", "--canonical").lines == wrote.lines
    assert f"@{handle}/rows" in cli("inspect", f"@{handle}").out
    examined = cli("doctor", f"@{handle}")
    assert examined.code == 0, examined.err
    assert cli("logout").code == 0
    cli("resolve", f"@{handle}/rows").failed(3, "nobody has the handle")
