"""Sessions against a real PDS."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from atdata_cli.atproto.session import ABSENT, ANY, Session
from atdata_cli.atproto.sessionfile import SessionFile
from atdata_cli.atproto.transport import BlobMissingError, SwapError, TooLargeError
from atdata_cli.errors import AtdataError, AuthError, NotFoundError
from tests.servers.pds import Account, PDSServer

NOTE = "local.atdata-cli.test"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pds_account: Account) -> None:
    """The variables of the account, but for its password; state in a folder of the test."""
    for name, value in pds_account.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ATDATA_PASSWORD")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def session(pds_account: Account) -> Session:
    return Session.login(pds_account.handle, pds_account.password)


def record(text: str) -> dict[str, str]:
    return {"$type": NOTE, "text": text}


def test_login_by_handle_with_and_without_at_and_by_did(pds_account: Account) -> None:
    for name in (pds_account.handle, "@" + pds_account.handle.upper(), pds_account.did):
        session = Session.login(name, pds_account.password)
        assert (session.did, session.handle, session.pds_url) == (
            pds_account.did,
            pds_account.handle,
            pds_account.pds_url,
        )
        session.close()


def test_a_wrong_password_is_told_without_it(pds_account: Account) -> None:
    with pytest.raises(AuthError) as caught:
        Session.login(pds_account.handle, "wrong-secret")
    assert "wrong-secret" not in f"{caught.value.message} {caught.value.hint} {caught.value!r}"


def test_an_unknown_handle(pds_account: Account) -> None:
    with pytest.raises(NotFoundError):
        Session.login("nobody-here.test", "x")


def test_a_stored_session_is_found_again_and_is_the_owners_alone(pds_account: Account, tmp_path: Path) -> None:
    Session.login(pds_account.handle, pds_account.password, keep=True).close()
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]
    for name in (None, pds_account.handle, pds_account.did):
        session = Session.from_environment_or_file(name)
        assert session.get("com.atproto.server.getSession")["did"] == pds_account.did
        session.close()
    session = Session.from_environment_or_file()
    refresh = session._tokens.refresh  # type: ignore[union-attr]
    session.logout()
    assert not SessionFile.all()
    with pytest.raises(AuthError):
        Session.from_environment_or_file()
    answer = httpx.post(
        f"{pds_account.pds_url}/xrpc/com.atproto.server.refreshSession", headers={"Authorization": f"Bearer {refresh}"}
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "ExpiredToken")


def test_another_accounts_session_is_not_used(pds_account: Account, pds_server: PDSServer) -> None:
    Session.login(pds_account.handle, pds_account.password, keep=True).close()
    other = pds_server.account()
    with pytest.raises(AuthError, match="not logged in as"):
        Session.from_environment_or_file(other.handle)


def test_handle_and_password_in_the_environment_need_no_login(
    pds_account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(pds_account.password + "\n")
    monkeypatch.setenv("ATDATA_PASSWORD_FILE", str(file))
    session = Session.from_environment_or_file(pds_account.did)
    assert session.authenticated
    assert not (tmp_path / "state").exists()
    monkeypatch.delenv("ATDATA_PASSWORD_FILE")
    monkeypatch.delenv("ATDATA_HANDLE")
    monkeypatch.setenv("ATPROTO_HANDLE", pds_account.handle)
    monkeypatch.setenv("ATPROTO_APP_PASSWORD", pds_account.app_password("env"))
    assert Session.from_environment_or_file().did == pds_account.did


def test_records(session: Session) -> None:
    uri, cid = session.put_record(NOTE, "one", record("first"))
    assert uri == f"at://{session.did}/{NOTE}/one"
    assert session.get_record(NOTE, "one") == (record("first"), cid)
    assert session.get_record(NOTE, "absent") is None
    assert session.put_record(NOTE, "one", record("first"), ABSENT) == (uri, cid)
    with pytest.raises(SwapError):
        session.put_record(NOTE, "one", record("second"), ABSENT)
    _, changed = session.put_record(NOTE, "one", record("second"), cid)
    with pytest.raises(SwapError):
        session.put_record(NOTE, "one", record("third"), cid)
    session.put_record(NOTE, "one", record("fourth"), ANY)
    with pytest.raises(SwapError):
        session.delete_record(NOTE, "one", changed)
    session.delete_record(NOTE, "one")
    session.delete_record(NOTE, "one")
    assert list(session.list_records(NOTE)) == []


def test_one_of_many_writers_wins(session: Session) -> None:
    gate = threading.Barrier(8)

    def put(number: int) -> bool:
        gate.wait()
        try:
            session.put_record(NOTE, "race", record(str(number)), ABSENT)
        except SwapError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(put, range(8)))
    assert won.count(True) == 1
    there = session.get_record(NOTE, "race")
    assert there is not None
    assert there[0] == record(str(won.index(True)))


def test_listing_goes_to_the_end(session: Session) -> None:
    writes = [
        {"$type": "com.atproto.repo.applyWrites#create", "collection": NOTE, "rkey": f"r{n}", "value": record(str(n))}
        for n in range(130)
    ]
    session.post("com.atproto.repo.applyWrites", {"repo": session.did, "writes": writes})
    assert sorted(int(value["text"]) for _, _, value in session.list_records(NOTE)) == list(range(130))


def test_a_missing_blob_is_named(session: Session) -> None:
    cid = "bafkreiaj4dviwkeqe7zfyx7z2gqp5txh5ocuxv6nf7jtikl2cdjplpv4b4"
    blob = {"$type": "blob", "ref": {"$link": cid}, "mimeType": "application/x-tar", "size": 10}
    with pytest.raises(BlobMissingError) as caught:
        session.put_record(NOTE, "blob", {**record("x"), "blob": blob})
    assert caught.value.cid == cid


def test_a_record_that_is_too_large(session: Session) -> None:
    with pytest.raises(TooLargeError):
        session.put_record(NOTE, "large", record("x" * 160_000))


def test_what_is_public_needs_no_login(session: Session) -> None:
    session.put_record(NOTE, "one", record("first"))
    for name in (session.handle, session.did):
        reader = Session.anonymous(name)
        found = reader.get_record(NOTE, "one")
        assert found is not None
        assert found[0] == record("first")
        with pytest.raises(AuthError):
            reader.put_record(NOTE, "two", record("second"))


def test_without_a_server_on_this_machine_the_directory_tells(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATDATA_PDS_URL")
    assert Session.anonymous(session.did).pds_url == session.pds_url
    monkeypatch.setenv("ATDATA_PDS_URL", session.pds_url)
    monkeypatch.delenv("ATDATA_PLC_URL")
    assert Session.anonymous(session.did).pds_url == session.pds_url
    assert os.environ["ATDATA_PDS_URL"]


def test_a_password_goes_to_no_other_server(pds_account: Account) -> None:
    with pytest.raises(AuthError, match="lives on another server"):
        Session.login(pds_account.did, pds_account.password, "https://pds.example.com")
    with pytest.raises(AtdataError, match="plain http"):
        Session.login(pds_account.did, pds_account.password, "http://pds.example.com")


def test_no_secret_shows(session: Session) -> None:
    tokens = session._tokens
    assert tokens is not None
    for shown in (repr(session), str(session), repr(tokens), str(tokens)):
        assert tokens.access not in shown
        assert tokens.refresh not in shown
