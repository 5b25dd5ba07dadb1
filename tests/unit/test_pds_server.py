"""The real PDS that tests use."""

from __future__ import annotations

from pathlib import Path

from tests.servers.pds import Account, PDSServer, run_pds


def test_an_account_can_log_in(pds_account: Account) -> None:
    described = pds_account.xrpc("com.atproto.repo.describeRepo", repo=pds_account.did)
    assert described["handle"] == pds_account.handle
    assert described["didDoc"]["service"][0]["serviceEndpoint"] == pds_account.pds_url


def test_data_outlives_a_restart(pds_server: PDSServer, tmp_path: Path) -> None:
    with run_pds(tmp_path, plc_url=pds_server.plc_url, blob_limit=5 << 20) as pds:
        account = pds.account("alice")
        pds.restart(PDS_BLOB_UPLOAD_LIMIT="1000")
        assert account.xrpc("com.atproto.server.getSession")["did"] == account.did
