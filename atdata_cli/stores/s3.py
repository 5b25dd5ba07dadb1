"""The S3 store: AWS, MinIO, R2, SeaweedFS, Ceph and every other server of the protocol, through s3fs."""

from __future__ import annotations

import builtins
import io
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from atdata_cli import net
from atdata_cli.errors import AtdataError, AuthError, DataError, NotFoundError, TemporaryError, UsageError
from atdata_cli.retry import Retry
from atdata_cli.shards.protocols import ObjectInfo
from atdata_cli.stores import s3_sign
from atdata_cli.stores.base import Session, StoreBase
from atdata_cli.stores.s3_errors import BARE_CODES, error_code, note_retries, request_error, retries_made, translated
from atdata_cli.stores.s3_upload import PART_SIZE, PartBody, S3Sink, Uploads

__all__ = ["S3DataStore", "S3Options"]

MIB = 1 << 20
READ_AHEAD = 4 * MIB
SMALL_OBJECT = 256 * MIB
LONGEST_URL = 7 * 24 * 3600  # SigV4's limit
DELETED_AT_ONCE = 1000

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0

_Answer = tuple[dict[str, Any], bytes]
_T = TypeVar("_T")

_connections: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class S3Options:
    """The ``-o KEY=VALUE`` options of this store.

    Attributes
    ----------
    part_size : bytes of a part of a multipart upload, at least 5 MiB; ``16M`` and so on as text.
    retries : how often a request is repeated after a temporary failure; as :mod:`atdata_cli.net` says by default.
    connect_timeout, read_timeout : seconds; likewise.
    expires : seconds for which a presigned URL is good.
    addressing : ``path``, ``virtual`` or ``auto``: where the bucket's name goes in a URL.
    requester_pays : pay for the transfer from such a bucket.
    acl, storage_class, encryption, kms_key_id : headers of new objects, as S3 names their values.
    """

    part_size: int = PART_SIZE
    retries: int = field(default_factory=lambda: net.retry().retries)
    connect_timeout: float = field(default_factory=lambda: net.timeouts(CONNECT_SECONDS, SILENCE_SECONDS)[0])
    read_timeout: float = field(default_factory=lambda: net.timeouts(CONNECT_SECONDS, SILENCE_SECONDS)[1])
    expires: int = 3600
    addressing: str = "auto"
    requester_pays: bool = False
    acl: str | None = None
    storage_class: str | None = None
    encryption: str | None = None
    kms_key_id: str | None = None

    def __post_init__(self) -> None:
        if self.part_size < 5 * MIB:
            raise UsageError("option part_size is too small", hint="S3 takes parts of 5 MiB and more")
        if self.addressing not in ("auto", "path", "virtual"):
            raise UsageError(f"option addressing cannot be '{self.addressing}'", hint="auto, path or virtual")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> S3Options:
        """Make them from a mapping whose values may be text."""
        default = cls()
        known = {one.name: getattr(default, one.name) for one in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in options.items():
            if name not in known:
                raise UsageError(f"an S3 store has no option '{name}'", hint="options: " + ", ".join(known))
            try:
                values[name] = _parse_option(value, known[name])
            except (ValueError, KeyError):
                raise UsageError(f"option {name} cannot be '{value}'") from None
        return cls(**values)

    def object_headers(self) -> dict[str, str]:
        """Parameters of every request that makes an object."""
        headers = {
            "ACL": self.acl,
            "StorageClass": self.storage_class,
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key_id,
        }
        return {name: value for name, value in headers.items() if value is not None}


def _parse_option(value: Any, like: Any) -> Any:
    """*value* as the type of the default *like*."""
    if not isinstance(value, str) or like is None or isinstance(like, str):
        return value
    if isinstance(like, bool):
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[value.lower()]
    if isinstance(like, float):
        return float(value)
    number = value.upper().removesuffix("B").removesuffix("I")
    scale = {"K": 1 << 10, "M": MIB, "G": 1 << 30}.get(number[-1:], 1)
    return int(number.rstrip("KMG")) * scale


@dataclass(frozen=True, slots=True)
class _Account:
    """Who we are and where the server is; None leaves it to the AWS chain."""

    key: str | None = None
    secret: str | None = None
    token: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False

    def __repr__(self) -> str:
        return f"_Account(endpoint_url={self.endpoint_url!r}, region={self.region!r})"


def _read_credentials(credentials: Mapping[str, str] | str | Path | None) -> dict[str, str]:
    """The non-empty entries of a mapping or a ``.env`` file."""
    if credentials is None:
        return {}
    if isinstance(credentials, Mapping):
        return {name: value for name, value in credentials.items() if value}
    from dotenv import dotenv_values

    path = os.fspath(credentials)
    if not os.path.isfile(path):
        raise NotFoundError("there is no such credentials file", url=path, hint="give a dict or a path to a .env file")
    # Not interpolated: a secret with a dollar sign is itself.
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}


def _check_endpoint(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise UsageError("the endpoint's URL must not hold credentials", hint="put them into AWS_ACCESS_KEY_ID …")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"'{endpoint}' is not an endpoint", hint="an endpoint begins with https:// or http://")
    return endpoint


class S3DataStore(StoreBase):
    """One bucket of an S3 server. Names are its keys.

    Nothing is asked of the network before the first use. A store may be shared by threads, pickled to other
    processes, and used on both sides of a fork.

    Parameters
    ----------
    credentials : a mapping, or the path of a ``.env`` file, with ``AWS_ACCESS_KEY_ID``,
        ``AWS_SECRET_ACCESS_KEY`` and optionally ``AWS_SESSION_TOKEN``, ``AWS_ENDPOINT`` or
        ``AWS_ENDPOINT_URL``, ``AWS_REGION``. None uses the normal AWS chain: environment, profile, role.
    bucket : its name.
    endpoint_url : the server, if not AWS; before the one in *credentials*.
    region : likewise.
    profile : a profile of the AWS configuration, instead of *credentials*.
    anonymous : send unsigned requests, for public buckets.
    options : see :class:`S3Options`.

    Attributes
    ----------
    bucket : its name.
    expires : seconds for which the URLs of :meth:`read_url` are good, 1 hour unless set; at most 7 days.

    Raises
    ------
    AuthError : *credentials* lacks a key.
    UsageError : the arguments do not fit together.
    """

    portable = True

    def __init__(
        self,
        credentials: Mapping[str, str] | str | Path | None = None,
        *,
        bucket: str,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        anonymous: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not bucket or "/" in bucket:
            raise UsageError(f"'{bucket}' cannot be a bucket's name", hint="s3://BUCKET/PREFIX")
        if credentials is not None and profile is not None:
            raise UsageError("credentials and a profile are two answers to one question", hint="give one of them")
        given = _read_credentials(credentials)
        missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name not in given]
        if credentials is not None and missing and not anonymous:
            raise AuthError(
                f"the credentials lack {' and '.join(missing)}",
                url=f"s3://{bucket}",
                hint="add them, or give no credentials to use the environment, a profile or an instance role",
            )
        self.bucket = bucket
        self._options = S3Options.parse(options or {})
        self.expires: int = self._options.expires
        self._account = _Account(
            key=given.get("AWS_ACCESS_KEY_ID"),
            secret=given.get("AWS_SECRET_ACCESS_KEY"),
            token=given.get("AWS_SESSION_TOKEN"),
            endpoint_url=_check_endpoint(endpoint_url or given.get("AWS_ENDPOINT") or given.get("AWS_ENDPOINT_URL")),
            region=region or given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION"),
            profile=profile,
            anonymous=anonymous,
        )
        self._forget_connection()

    def _forget_connection(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._fs: Any = None
        self._shared_uploads: Uploads | None = None

    def __repr__(self) -> str:
        return f"S3DataStore(bucket={self.bucket!r}, endpoint_url={self._account.endpoint_url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("bucket", "expires", "_options", "_account")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_connection()

    # -- the connection

    @property
    def fs(self) -> Any:
        """The ``s3fs.S3FileSystem``; its paths are ``bucket/key``."""
        if self._pid != os.getpid():
            # After a fork neither fsspec's event loop nor our threads exist in this process.
            self._forget_connection()
        with self._lock:
            if self._fs is None:
                # Shared while anybody holds it: connecting takes long, and what a request to the bucket has taught
                # the client (a redirect to its region) is needed to sign URLs.
                key = (os.getpid(), self._account, self._options, _aws_variables(), net.settings())
                self._fs = _connections.get(key)
            if self._fs is None:
                with translated(self.url(""), doing="connect to"):
                    self._fs = _connections[key] = self._connect()
            return self._fs

    def load(self) -> None:
        """See :class:`.protocols.ConnectingStore`."""
        import s3fs  # noqa: F401

    def connect(self) -> None:
        """See :class:`.protocols.ConnectingStore`."""
        self.fs  # noqa: B018

    @property
    def endpoint_url(self) -> str | None:
        """The server, whatever part of the AWS chain names it; None for AWS."""
        client = self.fs.s3
        return None if s3_sign.is_amazon(client) else str(client.meta.endpoint_url)

    def _connect(self) -> Any:
        import s3fs

        account, options = self._account, self._options
        told = {"region_name": account.region, "verify": net.s3_ca_file()}
        fs = s3fs.S3FileSystem(
            anon=account.anonymous,
            key=account.key,
            secret=account.secret,
            token=account.token,
            endpoint_url=account.endpoint_url,
            requester_pays=options.requester_pays,
            client_kwargs={name: value for name, value in told.items() if value},
            config_kwargs={
                # boto's default would presign with SigV2 for custom endpoints.
                "signature_version": "s3v4",
                "max_pool_connections": 16,
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
                "connect_timeout": options.connect_timeout,
                "read_timeout": options.read_timeout,
                "retries": {"mode": "standard", "total_max_attempts": 1},  # repeating is for Retry alone
                # Bodies have their own checksum; a second one in the signature would cost a SHA-256.
                "s3": {"payload_signing_enabled": False, "addressing_style": options.addressing},
            },
            s3_additional_kwargs=options.object_headers(),
            default_block_size=READ_AHEAD,
            use_listings_cache=False,
            skip_instance_cache=True,
            **({"profile": account.profile} if account.profile else {}),
        )
        fs.retries = 1
        fs.connect()
        _check_endpoint(fs.s3.meta.endpoint_url)  # of the environment or a profile
        _choose_proxies(fs.s3)
        _forbid_waiting_for_continue(fs.s3)
        s3_sign.prepare(fs.s3, requester_pays=options.requester_pays)
        return fs

    def _call(
        self, method: str, *, stop: threading.Event | None = None, retry: Retry | None = None, **params: Any
    ) -> dict[str, Any]:
        """The answer to a request; repeated as *retry* says, by default that of the options, until *stop* is set.

        Raises
        ------
        OSError : the last failure, as s3fs tells it. :func:`.s3_errors.retries_made` says how often it was sent before.
        """
        from fsspec.asyn import sync

        fs, silence = self.fs, self._options.read_timeout
        if isinstance(params.get("Body"), PartBody):
            return self._repeat(
                lambda: cast(dict[str, Any], sync(fs.loop, _send, fs, silence, method, params)),
                params,
                stop=stop,
                retry=retry,
            )
        return self._repeat(lambda: cast(dict[str, Any], fs.call_s3(method, **params)), params, stop=stop, retry=retry)

    def _repeat(
        self,
        ask: Callable[[], _T],
        params: Mapping[str, Any],
        *,
        stop: threading.Event | None = None,
        retry: Retry | None = None,
    ) -> _T:
        sent = 0

        def attempt() -> _T:
            nonlocal sent
            sent += 1
            if "Body" in params:
                params["Body"].seek(0)
            return ask()

        def meaning(error: Exception) -> AtdataError:
            return request_error(error, self.url(params.get("Key", "")))

        try:
            answer = (retry or Retry(self._options.retries)).run(attempt, stop=stop, meaning=meaning)
        except Exception as error:
            note_retries(error, sent - 1)
            raise
        if isinstance(answer, dict):
            answer.get("ResponseMetadata", {})["RetryAttempts"] = sent - 1
        return answer

    @property
    def _uploads(self) -> Uploads:
        self.fs  # noqa: B018 - connects, and begins anew after a fork
        with self._lock:
            if self._shared_uploads is None:
                self._shared_uploads = Uploads(self._call, self._options.part_size)
            return self._shared_uploads

    # -- names

    def url(self, name: str) -> str:
        """``s3://BUCKET/KEY``, the key as it is."""
        return f"s3://{self.bucket}/{name}"

    def _where(self, name: str) -> dict[str, Any]:
        """The object's parameters in a request."""
        if "\0" in name or not 1 <= _utf8_size(name) <= 1024:
            raise UsageError("this cannot be an object's name", url=self.url(name), hint="1 to 1024 bytes of UTF-8")
        if not {".", ".."}.isdisjoint(name.split("/")):
            # HTTP clients and servers would resolve them, and reach another object.
            raise UsageError("an object's name must not have '.' or '..' in its path", url=self.url(name))
        return {"Bucket": self.bucket, "Key": name}

    def read_url(self, url: str) -> str:
        """A presigned SigV4 URL, good for :attr:`expires` seconds, or as long as the session that signs it.

        Unsigned in an anonymous store.

        Parameters
        ----------
        url : as :meth:`url` gives it.
        """
        return self.read_urls([url])[0]

    def read_urls(self, urls: Sequence[str]) -> Sequence[str]:
        """:meth:`read_url` of many, signed in one go."""
        if not 1 <= self.expires <= LONGEST_URL:
            raise UsageError(
                "a presigned URL is good for 1 second to 7 days",
                url=self.url(""),
                hint="choose --expires between 1s and 7d",
            )
        objects = [self._where(self._name(url)) for url in urls]
        with translated(urls[0] if len(urls) == 1 else self.url(""), doing="sign a URL for"):
            return cast(list[str], self._sync(s3_sign.presign(self.fs.s3, objects, int(self.expires))))

    def session(self) -> Session | None:
        """The temporary credentials that sign here, if they are temporary."""
        if self._account.anonymous:
            return None
        with translated(self.url(""), doing="look at the credentials for"):
            return cast(Session | None, self._sync(s3_sign.session(self.fs.s3)))

    def _name(self, url: str) -> str:
        start = self.url("")
        if not url.startswith(start):
            raise UsageError("the URL is not of this bucket", url=url, hint=f"URLs here begin with {start}")
        return url.removeprefix(start)

    # -- objects

    def create(self, name: str) -> S3Sink:
        """Begin a new object, uploaded while it is written; replaces one of the same name when committed."""
        where = self._where(name)
        return S3Sink(self._uploads, bucket=where["Bucket"], key=where["Key"], url=self.url(name))

    def open(self, name: str) -> BinaryIO:
        """Open for reading, seekable; reads ahead 4 MiB at a time."""
        info = self.stat(name)
        if info is None:
            raise NotFoundError("cannot read it: there is no such object", url=self.url(name), hint="check the name")
        return io.BufferedReader(_RangeReader(self, info, self._uploads.pool), READ_AHEAD)

    def read(self, name: str) -> bytes | None:
        """A small object whole, or None if it is not there."""
        with translated(self.url(name), doing="read"):
            try:
                return self._get(SMALL_OBJECT, **self._where(name))[1]
            except OSError as error:
                if error_code(error) == "NoSuchKey":
                    return None
                raise

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below the folder *prefix*, in bytewise order of name.

        Some servers list in another order (folder by folder, or none), so the rows are sorted here.
        """
        folder = _folder(prefix)
        # UTF-8 sorts as its code points do.
        return iter(sorted(self._pages(folder), key=attrgetter("name")))

    def _pages(self, folder: str) -> Iterator[ObjectInfo]:
        more: dict[str, Any] = {}
        while True:
            with translated(self.url(folder), doing="list"):
                page = self._call("list_objects_v2", Bucket=self.bucket, Prefix=folder, **more)
            # Keys with a slash at the end stand for folders that some tools make.
            rows = (row for row in page.get("Contents", []) if not row["Key"].endswith("/"))
            yield from (_info(row["Key"], row["Size"], row) for row in rows)
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def stat(self, name: str) -> ObjectInfo | None:
        """One object, or None if it is not there."""
        where = self._where(name)
        with translated(self.url(name), doing="look at"):
            try:
                head = self._call("head_object", **where)
            except OSError as error:
                if error_code(error) not in BARE_CODES:
                    raise
                # The answer to HEAD has no room for a reason, the one for the first byte has.
                found = self._first_byte(where)
                if found is None:
                    return None
                head = found
        return _info(name, head["ContentLength"], head)

    def _first_byte(self, where: dict[str, str]) -> dict[str, Any] | None:
        try:
            answer, _ = self._get(1, Range="bytes=0-0", **where)
        except OSError as error:
            if error_code(error) == "NoSuchKey":
                return None
            raise
        # It came into being between the two requests: "bytes 0-0/SIZE".
        return {**answer, "ContentLength": int(answer["ContentRange"].rpartition("/")[2])}

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Store a small object unless the name is taken; True if this call stored it."""
        return self._put_if(name, data, IfNoneMatch="*")

    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool:
        """Replace a small object if its ETag still is *version*; True if replaced."""
        return self._put_if(name, data, IfMatch=f'"{version}"')

    def _put_if(self, name: str, data: bytes, **condition: Any) -> bool:
        where = self._where(name)
        with translated(self.url(name), doing="write to"):
            try:
                self._uploads.send("put_object", memoryview(data), once=True, **where, **condition)
            except OSError as error:
                code = error_code(error)
                if code in ("PreconditionFailed", "412"):
                    # It is sent again if the first answer was lost: what is in the way may be ours.
                    return retries_made(error) > 0 and self.read(name) == data
                if code == "NoSuchKey":
                    return False
                raise
            return True

    def delete(self, name: str) -> None:
        """Remove an object; no error if it is not there."""
        with translated(self.url(name), doing="delete"):
            try:
                self._call("delete_object", **self._where(name))
            except OSError as error:
                if error_code(error) != "NoSuchKey":
                    raise

    def delete_many(self, names: Sequence[str]) -> None:
        """Remove objects, up to 1,000 a request."""
        for start in range(0, len(names), DELETED_AT_ONCE):
            rows = [{"Key": name} for name in names[start : start + DELETED_AT_ONCE]]
            with translated(self.url(names[start]), doing="delete"):
                answer = self._call("delete_objects", Bucket=self.bucket, Delete={"Objects": rows, "Quiet": True})
            for failed in answer.get("Errors", ()):
                if failed.get("Code") != "NoSuchKey":
                    self.delete(failed["Key"])  # says what is wrong, or succeeds

    def leftovers(self, prefix: str, of: Callable[[str], bool] | None = None) -> builtins.list[str]:
        """Keys of multipart uploads that were begun below a folder and neither finished nor aborted."""
        return [row["Key"] for row in self._unfinished(prefix) if of is None or of(row["Key"])]

    def clean(self, prefix: str, of: Callable[[str], bool] | None = None) -> builtins.list[str]:
        """Abort :meth:`leftovers`; a server cannot tell whether somebody still writes them."""
        rows = [row for row in self._unfinished(prefix) if of is None or of(row["Key"])]
        for row in rows:
            with translated(self.url(row["Key"]), doing="abort the upload to"), suppress(FileNotFoundError):
                self._call("abort_multipart_upload", Bucket=self.bucket, Key=row["Key"], UploadId=row["UploadId"])
        return [row["Key"] for row in rows]

    def _unfinished(self, prefix: str) -> Iterator[dict[str, Any]]:
        folder = _folder(prefix)
        more: dict[str, Any] = {}
        while True:
            with translated(self.url(folder), doing="list the uploads of"):
                page = self._call("list_multipart_uploads", Bucket=self.bucket, Prefix=folder, **more)
            yield from (row for row in page.get("Uploads", []) if row["Key"].startswith(folder))
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def read_range(self, info: ObjectInfo, at: int, count: int) -> bytes:
        """*count* bytes from *at* on of the object that *info* describes; fails if it was replaced since."""
        unchanged = {"IfMatch": f'"{info.version}"'} if info.version else {}
        with translated(self.url(info.name), doing="read"):
            where = self._where(info.name)
            _, data = self._get(count, Range=f"bytes={at}-{at + count - 1}", **unchanged, **where)
        if len(data) != count:
            raise TemporaryError("cannot read it: the answer is too short", url=self.url(info.name))
        return data

    def _get(self, limit: int, **params: Any) -> _Answer:
        """An answer and its body of at most *limit* bytes; repeated if the connection breaks within it."""
        from fsspec.asyn import sync

        fs = self.fs
        return self._repeat(lambda: cast(_Answer, sync(fs.loop, _download, fs, limit, params)), params)

    def _sync(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run *work* in the event loop of the connection."""
        from fsspec.asyn import sync

        async def run() -> Any:
            return await work

        return sync(self.fs.loop, run)


def _aws_variables() -> Hashable:
    """What the environment says of who we are and where the server is."""
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))


def _folder(prefix: str) -> str:
    """What the keys below a prefix begin with."""
    plain = prefix.strip("/")
    return f"{plain}/" if plain else ""


def _utf8_size(name: str) -> int:
    """Bytes of *name*; 0 if it cannot be encoded."""
    try:
        return len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return 0


def _choose_proxies(client: Any) -> None:
    """Let proxies be chosen as for all other connections. botocore knows no networks in ``NO_PROXY``."""
    from botocore.httpsession import ProxyConfiguration

    class Proxies(ProxyConfiguration):  # type: ignore[misc]
        def proxy_url_for(self, url: str) -> str | None:
            return net.proxy_for(url)

    # Where this name is another one, those that botocore found in the environment stay.
    client._endpoint.http_session._proxy_config = Proxies()


def _forbid_waiting_for_continue(client: Any) -> None:
    """Send bodies at once. aiohttp waits for "100 Continue" without end, and not every server sends it.

    AWS does, and there the wait has a use: a redirect comes before the body is spent.
    """
    from botocore.handlers import add_expect_header

    if not s3_sign.is_amazon(client):
        client.meta.events.unregister("before-call.s3", add_expect_header)


def _info(name: str, size: int, answer: Mapping[str, Any]) -> ObjectInfo:
    etag = answer.get("ETag")
    return ObjectInfo(name, int(size), etag.strip('"') if etag else None)


async def _send(fs: Any, silence: float, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A request whose body the server has to take, piece by piece: aiohttp would wait for that without end."""
    import asyncio

    body: PartBody = params["Body"]
    body.waits = False
    request = asyncio.ensure_future(fs._call_s3(method, **params))
    try:
        while True:
            taken = body.taken
            await asyncio.wait((request,), timeout=silence)
            if request.done():
                return cast(dict[str, Any], request.result())
            if body.waits and body.taken == taken:
                raise TimeoutError("the server takes no more of what is sent")
    finally:
        request.cancel()


async def _download(fs: Any, limit: int, params: dict[str, Any]) -> _Answer:
    answer: dict[str, Any] = await fs._call_s3("get_object", **params)
    async with answer["Body"] as body:
        if answer["ContentLength"] > limit:
            raise DataError(f"the answer is larger than {limit:,} bytes")
        try:
            data: bytes = await body.read()
        except Exception as error:
            raise ConnectionError("the connection broke within the body") from error
    return answer, data


class _RangeReader(io.RawIOBase):
    """An object as an unbuffered file: a request a read, and from the second in a row on one ahead."""

    def __init__(self, store: S3DataStore, info: ObjectInfo, ahead: Executor) -> None:
        super().__init__()
        self.name = store.url(info.name)
        self._store = store
        self._info = info
        self._executor = ahead
        self._at = 0
        self._read_to = -1
        self._ahead: tuple[int, int, Future[bytes]] | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; costs nothing until the next read."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._info.size}[whence]
        if at < 0:
            raise ValueError("negative position")
        self._at = at
        return at

    def readinto(self, target: Any, /) -> int:
        """Fill *target* as far as the object goes."""
        at, count = self._at, min(len(target), self._info.size - self._at)
        if count <= 0:
            return 0
        data = self._take(at, count)
        in_a_row = at == self._read_to
        self._at = self._read_to = at + len(data)
        following = min(count, self._info.size - self._at)
        if in_a_row and following > 0:
            future = self._executor.submit(self._store.read_range, self._info, self._at, following)
            self._ahead = (self._at, following, future)
        target[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """The rest of the object, in large blocks; the inherited one would ask for 8 KiB at a time."""
        rest = memoryview(bytearray(max(0, self._info.size - self._at)))
        filled = 0
        while filled < len(rest):
            filled += self.readinto(rest[filled : filled + READ_AHEAD])
        return bytes(rest)

    def _take(self, at: int, count: int) -> bytes:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == at and ahead[1] <= count:
            return ahead[2].result()
        return self._store.read_range(self._info, at, count)
