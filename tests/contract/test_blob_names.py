"""What a real PDS takes a tar for, by the name that it begins with."""

from __future__ import annotations

import io
import tarfile

import httpx
import pytest

from atdata_cli.atproto.blobs import looks_like
from tests.servers.pds import Account


def tar(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


MISTAKEN = """BM01.txt MZ.txt %!x.txt BZh9.txt ID3.txt MP+1.txt CWS.txt FWS.txt GIF.txt FLIF.txt 8BPS.txt MPCK.txt
    FORM.txt icns.txt OggS.txt MThd.txt LZIP.txt fLaC.txt wvpk.txt %PDF.txt SQLi.txt Cr24.txt MSCF.txt ISc(.txt
    #!AMR.txt {\\rtf.txt IMPM.txt ITSF.txt BLENDER.txt !<arch>.txt BEGIN:VCARD.txt RIFF0000AVI.txt RIFF0000WAVE.txt
    aa-lh5-a.txt aaaafree.txt aaaamdat.txt aaaamoov.txt aaaawide.txt aaaaftypmp42.txt aaaaaaaaWEBP.txt""".split()
PLAIN = "0000000000.msgpack bm.txt gif.txt image.jpg M.txt RIFF.txt RIFF0000none.txt a-lh5-.txt wOFF.txt".split()


@pytest.fixture(scope="module")
def uploader(pds_server) -> tuple[Account, str]:
    account = pds_server.account()
    return account, account.token()


def is_tar(uploader: tuple[Account, str], name: str) -> bool:
    account, token = uploader
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-tar"}
    url = f"{account.pds_url}/xrpc/com.atproto.repo.uploadBlob"
    answer = httpx.post(url, content=tar(name), headers=headers, timeout=60)
    return answer.is_success and answer.json()["blob"]["mimeType"] == "application/x-tar"


@pytest.mark.parametrize("name", MISTAKEN)
def test_names_that_servers_mistake_are_known(uploader: tuple[Account, str], name: str) -> None:
    assert looks_like(tar(name)) is not None
    assert not is_tar(uploader, name)


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_not_refused(uploader: tuple[Account, str], name: str) -> None:
    assert looks_like(tar(name)) is None
    assert is_tar(uploader, name)
