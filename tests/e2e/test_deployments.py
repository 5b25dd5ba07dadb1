"""Each pair of index and store, from ``write`` through ``publish`` to WebDataset in another process."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.test_resolve_wds import READ, read, written

__all__ = ["written"]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A plain web server of the test's folder."""
    handler = partial(SilentHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("store", ["disk", "s3", "web"])
def test_local_index(cli, s3_env, s3_bucket, written, web, tmp_path, store):
    place = {"disk": "out", "s3": f"s3://{s3_bucket}/p", "web": f"{web}/out/"}[store]
    ran = cli("publish", place, "@local/photos@1.0.0", "--description", "cats and dogs", env=s3_env)
    assert (ran.code, ran.lines) == (0, ["atdata://local/dataset/photos@1.0.0"]), ran.err
    assert len(written) == 30
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "home").mkdir()
    for ref in ("@local/photos", "atdata://local/dataset/photos@1.0.0"):
        ran = cli("resolve", ref, "--format", "wds", "--check", env=s3_env, cwd=elsewhere)
        assert (ran.code, ran.err) == (0, "")
        assert read(READ, ran.lines[0], cwd=elsewhere) == written
    # Every hash of the index against every byte, and the data once more through it.
    ran = cli("inspect", "@local/photos", "--verify", env=s3_env)
    assert (ran.code, ran.out) == (0, "")
    assert cli("write", "@local/photos", "again", "--max-count", "8", env=s3_env).code == 0
    again = cli("resolve", "again", "--format", "wds").lines[0]
    assert read(READ, again, cwd=tmp_path) == written
    assert cli("publish", place, "@local/photos@1.0.0", env=s3_env).err.startswith("warning: ")
    assert "unchanged" in cli("publish", place, "@local/photos@1.0.0", env=s3_env).err
    # Without the name the shards stay.
    assert cli("unpublish", "@local/photos", "--yes").code == 0
    cli("resolve", "@local/photos", env=s3_env).failed(3, "no such dataset")
    ran = cli("resolve", place, "--format", "wds", env=s3_env)
    assert read(READ, ran.lines[0], cwd=tmp_path) == written
