"""On a terminal long work shows how far it is: what is read to be checked, what is made anew, what is sent."""

from __future__ import annotations

import os
import pty
import random
import re
import subprocess
import threading
from pathlib import Path

from tests.cli.conftest import COMMAND, Cli, environment
from tests.servers.faults import FaultyProxy, Slow
from tests.servers.pds import run_pds

MIB = 1 << 20


def on_a_terminal(folder: Path, env: dict[str, str], *arguments: str) -> str:
    """What a run shows on the terminal that its stderr is."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                shown.append(data)
        except OSError:  # how Linux says that nobody has the other end any more
            return

    reader = threading.Thread(target=read)
    reader.start()
    clean = environment(folder / "home", {**env, "TERM": "xterm", "COLUMNS": "100"})
    ran = subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=clean, stderr=theirs, stdout=subprocess.DEVNULL, timeout=120, check=False
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(shown).decode())
    assert ran.returncode == 0, text
    return text


def test_publish_and_verify(cli: Cli, pds_server, tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.bin").write_bytes(random.Random(number).randbytes(300_000))
    assert cli("write", folder, "small", "--max-count", "2").code == 0
    assert cli("write", folder, "large").code == 0
    with run_pds(tmp_path / "pds", plc_url=pds_server.plc_url, blob_limit=MIB) as pds, FaultyProxy(pds.url) as proxy:
        account = pds.account()
        env = {**account.env, "ATDATA_PDS_URL": proxy.url}
        # Each upload takes half a second, so that there is something to see.
        proxy.when(Slow(1.2e6), contains="uploadBlob", where=lambda one: one.headers["content-length"] != "52428800")
        shown = on_a_terminal(
            tmp_path, env, "publish", "small", f"@{account.handle}/small", "--blobs", "--verify", "-j", "2"
        )
        assert "verifying · " in shown
        assert "uploading · " in shown
        shown = on_a_terminal(tmp_path, env, "publish", "large", f"@{account.handle}/large", "--blobs")
        assert "re-sharding · " in shown
    assert "verifying · " in on_a_terminal(tmp_path, {}, "inspect", "large", "--verify", "-j", "2")
