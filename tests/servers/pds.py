"""A real PDS (the reference implementation) and its PLC directory, for tests; Node runs both.

Installed by ``python tests/servers/pds.py install FOLDER`` from the versions in ``pds_node/package.json``, shared by
the workers of a test run as the S3 server is. A test that needs a server of its own kind starts one beside it::

    with run_pds(tmp_path, plc_url=pds_server.plc_url, rate_limits=True) as pds:
        account = pds.account()
        pds.restart()
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.servers.shared import ROOT, free_ports, guard, shared

ENVIRONMENT = ROOT / ".build" / "pds"
SOURCES = Path(__file__).parent / "pds_node"
ATTEMPTS = 3
MIB = 1 << 20


@dataclass(frozen=True)
class Account:
    """An account of a test server.

    Attributes
    ----------
    handle, did, password : of the account.
    pds_url, plc_url : where it lives.
    """

    handle: str
    did: str
    password: str = field(repr=False)
    pds_url: str
    plc_url: str

    @property
    def env(self) -> dict[str, str]:
        """The variables with which the command line uses this account."""
        return {
            "ATDATA_HANDLE": self.handle,
            "ATDATA_PASSWORD": self.password,
            "ATDATA_PDS_URL": self.pds_url,
            "ATDATA_PLC_URL": self.plc_url,
        }

    def xrpc(self, nsid: str, body: Any = None, *, token: str | None = None, **params: Any) -> Any:
        """One call with nothing of ours in between: a procedure if there is a *body*, else a query."""
        import httpx

        headers = {"Authorization": f"Bearer {token or self.token()}"}
        url = f"{self.pds_url}/xrpc/{nsid}"
        if body is None:
            answer = httpx.get(url, params=params, headers=headers, timeout=60)
        else:
            answer = httpx.post(url, json=body, headers=headers, timeout=60)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def token(self) -> str:
        """An access token of a session that is made for this; good for two hours."""
        return _token(self)

    def app_password(self, name: str) -> str:
        """A new app password; ``com.atproto.server.revokeAppPassword`` with its name ends it."""
        return str(self.xrpc("com.atproto.server.createAppPassword", {"name": name})["password"])

    def records(self, collection: str) -> list[dict[str, Any]]:
        """All records of a collection, as the server has them (at most 100)."""
        listed = self.xrpc("com.atproto.repo.listRecords", repo=self.did, collection=collection, limit=100)
        return list(listed["records"])

    def blobs(self) -> list[str]:
        """CIDs of the blobs that records hold."""
        return list(self.xrpc("com.atproto.sync.listBlobs", did=self.did, limit=1000)["cids"])


@lru_cache(maxsize=1000)
def _token(account: Account) -> str:
    import httpx

    body = {"identifier": account.did, "password": account.password}
    answer = httpx.post(f"{account.pds_url}/xrpc/com.atproto.server.createSession", json=body, timeout=60)
    assert answer.is_success, answer.text
    return str(answer.json()["accessJwt"])


@dataclass
class PDSServer:
    """A running server.

    Attributes
    ----------
    url, plc_url : ``http://localhost:PORT``.
    admin_password : for ``com.atproto.admin`` calls, as user "admin".
    """

    url: str
    plc_url: str
    admin_password: str = field(repr=False)

    def account(self, name: str | None = None) -> Account:
        """Make an account; by default one that nobody else uses. *name* has 3 to 18 letters, digits and hyphens."""
        import httpx

        handle = f"{name or 'u' + uuid.uuid4().hex[:14]}.test"
        password = uuid.uuid4().hex
        body = {"handle": handle, "email": f"{handle}@example.com", "password": password}
        answer = httpx.post(f"{self.url}/xrpc/com.atproto.server.createAccount", json=body, timeout=60)
        assert answer.is_success, answer.text
        return Account(handle, answer.json()["did"], password, self.url, self.plc_url)


class RunningPDS(PDSServer):
    """A server of one test, which can stop it and start it again on the same data and port."""

    def __init__(self, folder: Path, plc_url: str, settings: dict[str, str]) -> None:
        secret = os.urandom(32).hex()
        port = free_ports(1)[0]
        super().__init__(f"http://localhost:{port}", plc_url, secret)
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = _settings(folder, port, plc_url, secret) | settings

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._process = _node(["pds"], self._settings)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def restart(self, **settings: str) -> None:
        """Stop and start again; with other ``PDS_…`` variables, if given."""
        self.stop()
        self._settings.update(settings)
        self.start()


def _settings(folder: Path, port: int, plc_url: str, secret: str) -> dict[str, str]:
    """What a PDS on this machine needs to know."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    return {
        "PDS_PORT": str(port),
        "PDS_HOSTNAME": "localhost",
        "PDS_DEV_MODE": "true",
        "PDS_DATA_DIRECTORY": str(folder / "data"),
        "PDS_BLOBSTORE_DISK_LOCATION": str(folder / "blobs"),
        "PDS_BLOBSTORE_DISK_TMP_LOCATION": str(folder / "blobs-tmp"),
        "PDS_BLOB_UPLOAD_LIMIT": str(50 * MIB),
        "PDS_DID_PLC_URL": plc_url,
        "PDS_JWT_SECRET": secret,
        "PDS_ADMIN_PASSWORD": secret,
        "PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX": os.urandom(32).hex(),
        "PDS_INVITE_REQUIRED": "false",
        "PDS_SERVICE_HANDLE_DOMAINS": ".test",
        "PDS_DISABLE_SSRF_PROTECTION": "true",
        "LOG_ENABLED": "false",
    }


@contextmanager
def run_plc() -> Iterator[str]:
    """A PLC directory that forgets all at its end; gives its URL."""
    for attempt in range(ATTEMPTS):
        port = free_ports(1)[0]
        try:
            process = _node(["plc", str(port)], {"LOG_ENABLED": "false"})
        except RuntimeError:  # another process took the port
            if attempt == ATTEMPTS - 1:
                raise
            continue
        break
    try:
        yield f"http://localhost:{port}"
    finally:
        _end(process)


@contextmanager
def run_pds(
    folder: Path, *, plc_url: str, rate_limits: bool = False, blob_limit: int = 50 * MIB
) -> Iterator[RunningPDS]:
    """A PDS of one test, with its data in *folder*.

    Parameters
    ----------
    plc_url : of the PLC directory, usually that of the shared server.
    rate_limits : switch them on, as on a public server.
    blob_limit : bytes that a blob may have.
    """
    settings = {"PDS_BLOB_UPLOAD_LIMIT": str(blob_limit)}
    if rate_limits:
        settings["PDS_RATE_LIMITS_ENABLED"] = "true"
    for attempt in range(ATTEMPTS):
        pds = RunningPDS(folder, plc_url, settings)
        try:
            pds.start()
        except RuntimeError:  # another process took the port
            if attempt == ATTEMPTS - 1:
                raise
            continue
        break
    try:
        yield pds
    finally:
        pds.stop()


@contextmanager
def shared_server(folder: Path) -> Iterator[PDSServer]:
    """Use the server of *folder*: whoever comes first starts it, and it stops after the last one left."""
    with shared(folder, "tests.servers.pds") as server:
        yield PDSServer(**server)


def _start() -> tuple[dict[str, Any], Callable[[], None]]:
    """What the guard runs."""
    stack = ExitStack()
    try:
        data = Path(tempfile.mkdtemp(prefix="pds-"))
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        plc_url = stack.enter_context(run_plc())
        pds = stack.enter_context(run_pds(data, plc_url=plc_url))
    except BaseException:
        stack.close()
        raise
    return asdict(PDSServer(pds.url, pds.plc_url, pds.admin_password)), stack.close


def _node(arguments: list[str], settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Run a server; returns when it is ready. It ends with this process."""
    assert (ENVIRONMENT / ".installed").exists(), (
        "the PDS is not installed: run `make test`, which installs it, or link .build from a clone that has it"
    )
    process = subprocess.Popen(
        ["node", str(SOURCES / "serve.mjs"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ENVIRONMENT,
        env={**os.environ, "NODE_ENV": "production", **settings},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == b"ready":
            return process
    _end(process)
    raise RuntimeError(f"node {arguments[0]} ended: exit code {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def install(environment: Path) -> None:
    """Install the servers; SQLite's binding is compiled here, for downloads of built ones may not be reachable."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise SystemExit("the tests against a real PDS need Node.js 20 or newer, with npm")
    environment.mkdir(parents=True, exist_ok=True)
    shutil.copy(SOURCES / "package.json", environment)
    npm = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(npm, cwd=environment, check=True)
    gyp = [str(environment.resolve() / "node_modules" / ".bin" / "node-gyp"), "rebuild", "--release", "--silent"]
    headers = Path(node).resolve().parents[1]
    if (headers / "include" / "node" / "node.h").exists():
        gyp.append(f"--nodedir={headers}")
    log = environment / "build.log"
    with open(log, "w") as output:
        built = subprocess.run(
            gyp, cwd=environment / "node_modules" / "better-sqlite3", stdout=output, stderr=output, check=False
        )
    if built.returncode != 0:
        raise SystemExit(f"SQLite's binding for the PDS could not be compiled:\n{log.read_text()[-4000:]}")


if __name__ == "__main__":
    if sys.argv[1] == "install":
        install(Path(sys.argv[2]))
    else:
        sys.exit(guard(_start))
