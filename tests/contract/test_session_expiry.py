"""Sessions whose tokens end, against a real PDS."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atdata_cli.atproto.session import Session
from atdata_cli.atproto.sessionfile import SessionFile
from atdata_cli.errors import AuthError
from tests.servers.pds import Account, PDSServer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pds_account: Account) -> None:
    """The variables of the account, but for its password; state in a folder of the test."""
    for name, value in pds_account.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ATDATA_PASSWORD")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def expired(token: str, server: PDSServer) -> str:
    """The token as the server itself would have made it a day ago."""
    head, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["iat"] -= 86_400
    claims["exp"] = claims["iat"] + 7_200
    signed = f"{head}.{_base64(json.dumps(claims).encode())}"
    # The test server has one secret for everything.
    return f"{signed}.{_base64(hmac.digest(server.admin_password.encode(), signed.encode(), hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def expire(file: SessionFile, server: PDSServer) -> str:
    """Let the access token of a stored session be one that has expired; returns it."""
    tokens = file.read()
    assert tokens is not None
    old = expired(tokens.access, server)
    file.write(dataclasses.replace(tokens, access=old))
    return old


def whoami(session: Session) -> str:
    return str(session.get("com.atproto.server.getSession")["did"])


def test_many_users_of_an_expired_session_renew_it_once(pds_account: Account, pds_server: PDSServer) -> None:
    Session.login(pds_account.handle, pds_account.password, keep=True).close()
    [file] = SessionFile.all()
    old = expire(file, pds_server)
    sessions = [Session.from_environment_or_file() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(whoami, sessions * 4)) == {pds_account.did}
    renewed = file.read()
    assert renewed is not None
    assert renewed.access != old
    # All have the tokens of the one renewal: a second one would have made others.
    assert {session.authorization()["Authorization"] for session in sessions} == {f"Bearer {renewed.access}"}
    assert file.path.stat().st_mode & 0o777 == 0o600
    for session in sessions:
        session.close()


def test_a_revoked_password_ends_the_session_with_a_hint(pds_account: Account, pds_server: PDSServer) -> None:
    password = pds_account.app_password("ours")
    Session.login(pds_account.handle, password, keep=True).close()
    [file] = SessionFile.all()
    expire(file, pds_server)
    pds_account.xrpc("com.atproto.server.revokeAppPassword", {"name": "ours"})
    session = Session.from_environment_or_file()
    with pytest.raises(AuthError, match="has ended") as caught:
        whoami(session)
    assert caught.value.hint == f"atdata-cli login {pds_account.handle}"
    told = f"{caught.value.message}{caught.value.url}"
    assert password not in told
    session.close()


def test_a_password_in_the_environment_logs_in_again(
    pds_account: Account, pds_server: PDSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATDATA_PASSWORD", pds_account.password)
    session = Session.from_environment_or_file()
    tokens = session._tokens
    assert tokens is not None
    session._tokens = dataclasses.replace(tokens, access=expired(tokens.access, pds_server), refresh="spent")
    assert whoami(session) == pds_account.did
    session.close()
