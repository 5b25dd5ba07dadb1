"""Whether a place can be used, found out step by step: what fails first names what is to be mended.

The object that is written for this has a hidden name, which no source reads, and is gone at the end.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from atdata_cli import net
from atdata_cli.errors import (
    AtdataError,
    AuthError,
    IntegrityError,
    NotFoundError,
    TemporaryError,
    UntrustedError,
    UsageError,
    from_os_error,
)
from atdata_cli.refs import LOCAL_INDEX, MANIFEST, Reference, in_index, local_path, parse, redact, scheme
from atdata_cli.shards.protocols import ShardStore
from atdata_cli.stores.registry import StoreOptions, open_store

if TYPE_CHECKING:
    from atdata_cli.atproto.session import Session
    from atdata_cli.stores.s3 import S3DataStore

__all__ = ["Check", "Examination", "iam_policy"]

Status = Literal["ok", "warning", "failed", "skipped"]
_CONTENT = b"atdata-cli doctor: this object may be deleted\n" * 20
_SOON = 3600  # seconds until credentials end, of which a long run should know


@dataclass(frozen=True, slots=True)
class Check:
    """One step, done.

    Attributes
    ----------
    step : its name.
    status : ``skipped`` where an earlier step failed, or where there is nothing to check.
    said : what was found.
    fix : what to do about it.
    error : why it failed.
    """

    step: str
    status: Status
    said: str
    fix: str | None = None
    error: AtdataError | None = None


class _Warning(Exception):
    def __init__(self, said: str, fix: str | None = None) -> None:
        super().__init__(said)
        self.said = said
        self.fix = fix


class _Nothing(Exception):
    pass


_Step = tuple[str, Callable[[], str]]


class Examination:
    """Looks at one place.

    Parameters
    ----------
    url : a path, a URL prefix, or ``@HANDLE``.
    options : how stores are reached.
    read_only : write nothing.
    """

    def __init__(self, url: str, options: StoreOptions, *, read_only: bool) -> None:
        self._url = url
        self._options = options
        self.read_only = read_only

    def checks(self) -> Iterator[Check]:
        """All steps, as they are done; what needs one that failed is skipped."""
        failed = False
        patient: _Patient = self._patient()
        try:
            for name, step in patient.steps():
                if failed:
                    yield Check(name, "skipped", "an earlier step failed")
                    continue
                check = _done(name, step)
                failed = check.status == "failed"
                yield check
        finally:
            patient.clean()

    def policy(self) -> Mapping[str, Any] | None:
        """The smallest IAM policy, for S3."""
        if scheme(self._url) != "s3":
            return None
        bucket, _, prefix = self._url.removeprefix("s3://").partition("/")
        return iam_policy(bucket, prefix, read_only=self.read_only)

    def _patient(self) -> _Patient:
        if in_index(self._url):
            return _Account(parse(self._url), read_only=self.read_only)
        store, prefix = open_store(self._url, self._options)
        kind = scheme(self._url)
        if kind == "s3":
            return _S3(self._url, store, prefix, read_only=self.read_only)
        if kind in ("http", "https"):
            return _Web(self._url, store, prefix, read_only=True)
        if kind in ("", "file"):
            return _Folder(self._url, store, prefix, read_only=self.read_only)
        return _Place(self._url, store, prefix, read_only=self.read_only)


def _done(name: str, step: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", step())
    except _Warning as warning:
        return Check(name, "warning", warning.said, warning.fix)
    except _Nothing as nothing:
        return Check(name, "skipped", str(nothing))
    except AtdataError as error:
        return Check(name, "failed", error.message, error.hint, error)
    except OSError as error:
        found = from_os_error(error, str(error.filename or ""), doing="use")
        return Check(name, "failed", found.message, found.hint, found)


class _Patient(ABC):
    @abstractmethod
    def steps(self) -> Sequence[_Step]: ...

    def clean(self) -> None:  # noqa: B027 - most leave nothing
        pass


# -- the way to a server


def _network(server: Callable[[], str], ca_file: Callable[[], str | None]) -> list[_Step]:
    """Steps of getting to a server, by its URL."""
    return [
        ("name resolution", lambda: _resolved(server())),
        ("proxy", lambda: _proxied(server())),
        ("certificate", lambda: _certified(server(), ca_file())),
    ]


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _resolved(server: str) -> str:
    host, port = _host_port(net.proxy_for(server) or server)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TemporaryError(
            f"the name '{host}' is not known: {error.strerror or error}",
            url=redact(server),
            hint="check the spelling, the endpoint and this machine's DNS; or name a proxy (HTTPS_PROXY)",
        ) from error
    addresses = list(dict.fromkeys(str(row[4][0]) for row in found))
    if addresses == [host]:
        return f"{host} is an address"
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return f"{host} is {', '.join(addresses[:3])}{more}"


def _proxied(server: str) -> str:
    proxy = net.proxy_for(server)
    return "none: the server is asked directly" if proxy is None else f"through {redact(proxy)}"


def _certified(server: str, ca_file: str | None) -> str:
    host, port = _host_port(server)
    if not server.lower().startswith("https:"):
        if net.is_loopback(server):
            raise _Nothing("plain HTTP, on this machine")
        raise _Warning("plain HTTP: what is sent can be read on its way", "use an https: URL")
    if net.proxy_for(server) is not None:
        raise _Nothing("the proxy is between: the first request checks it")
    context = net.ssl_context() if ca_file is None else ssl.create_default_context(cafile=ca_file)
    connect, _ = net.timeouts(10.0)
    try:
        with (
            socket.create_connection((host, port), timeout=connect) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            found = cast("dict[str, Any]", secured.getpeercert())
    except ssl.SSLCertVerificationError as error:
        raise UntrustedError(
            f"the server's certificate is not trusted: {error.verify_message}", url=redact(server), hint=net.CA_HINT
        ) from error
    except OSError as error:
        raise TemporaryError(
            f"no connection to {host}:{port}: {error.strerror or error}", url=redact(server)
        ) from error
    issuer = {name: value for part in found.get("issuer", ()) for name, value in part}
    by = issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority"
    return f"of {by}, good until {found.get('notAfter', 'an unknown time')}"


# -- stores


class _Place(_Patient):
    """Any store: list, put, read, sign, delete."""

    def __init__(self, url: str, store: Any, prefix: str, *, read_only: bool) -> None:
        self.url = url
        self.store = store
        self.prefix = prefix
        self.read_only = read_only
        folder = f"{prefix}/" if prefix else ""
        self.name = f"{folder}.atdata-doctor-{secrets.token_hex(6)}/object"
        self._written = False

    def steps(self) -> Sequence[_Step]:
        if not isinstance(self.store, ShardStore):
            return [("store", self._foreign)]
        return [*self.way(), ("list", self._list), *(self._reading() if self.read_only else self._writing())]

    def way(self) -> Sequence[_Step]:
        """Steps before the store is asked anything."""
        return []

    def _reading(self) -> Sequence[_Step]:
        return [("read", self._read_manifest)]

    def _writing(self) -> Sequence[_Step]:
        return [
            ("put", self._put),
            ("conditional put", self._put_again),
            ("read back", self._read_back),
            ("sign", self._sign),
            ("delete", self._delete),
        ]

    def _foreign(self) -> str:
        raise _Warning("a plugin's store that only writes and reads whole datasets: nothing else can be checked")

    def _list(self) -> str:
        # A folder that cannot be there: the permission is checked, however much there is.
        next(iter(self.store.list(self.name.rpartition("/")[0])), None)
        return "allowed"

    def _read_manifest(self) -> str:
        name = f"{self.prefix}/{MANIFEST}" if self.prefix else MANIFEST
        found = self.store.read(name)
        if found is None:
            raise _Nothing(f"there is no {MANIFEST} to read")
        return f"{MANIFEST}, {len(found):,} bytes"

    def _put(self) -> str:
        sink = self.store.create(self.name)
        try:
            sink.write(_CONTENT)
            self._written = True
            sink.commit()
        except BaseException:
            sink.abort()
            raise
        if not self.store.atomic:
            raise _Warning("allowed, but a file may be seen before it is whole", "read through the manifest only")
        return "allowed; whole or not at all"

    def _put_again(self) -> str:
        if self.store.put_if_absent(self.name, b"another"):
            raise _Warning(
                "the server stores over what is there, although told not to",
                "let runs that write to one place not overlap (flock)",
            )
        return "refused where something is, as it should be: runs that overlap are safe"

    def _read_back(self) -> str:
        with self.store.open(self.name) as file:
            whole = file.read()
            if file.seekable():
                file.seek(46)
                whole = whole if file.read(46) == _CONTENT[46:92] else b""
        if whole != _CONTENT:
            raise IntegrityError("what comes back is not what was stored", url=self.store.url(self.name))
        return f"{len(whole):,} bytes, the same"

    def _sign(self) -> str:
        url = self.store.url(self.name)
        try:
            signed = self.store.read_url(url)
        except AtdataError as error:
            raise _Warning(error.message, error.hint) from error
        if scheme(signed) not in ("http", "https"):
            return f"WebDataset opens '{scheme(signed) or 'a path'}' itself" if scheme(signed) else "a path, as it is"
        if _fetched(signed) != _CONTENT:
            raise IntegrityError("the signed URL gives something else", url=url)
        return "the signed URL gives the same bytes to anybody"

    def _delete(self) -> str:
        self.store.delete(self.name)
        if self.store.stat(self.name) is not None:
            raise IntegrityError("it is still there", url=self.store.url(self.name))
        self._written = False
        return "allowed; nothing stays behind"

    def clean(self) -> None:
        """Leave nothing, whatever happened."""
        if self._written:
            with suppress(AtdataError):
                self.store.delete(self.name)


class _Folder(_Place):
    def way(self) -> Sequence[_Step]:
        return [("folder", self._look)]

    def _look(self) -> str:
        path = os.path.abspath(local_path(self.url))
        there = path
        while not os.path.lexists(there) and there != os.path.dirname(there):
            there = os.path.dirname(there)
        if not os.path.isdir(there):
            raise from_os_error(NotADirectoryError(), there, doing="use")
        found = os.statvfs(there)
        free = f"{found.f_bavail * found.f_frsize / 2**30:,.1f} GiB free"
        if self.read_only and there != path:
            raise NotFoundError("there is no such folder", url=self.url, hint="check the path")
        return f"{'is there' if there == path else 'is made when something is written'}; {free}"

    def _sign(self) -> str:
        return "a path: WebDataset opens it as it is"


class _Web(_Place):
    def way(self) -> Sequence[_Step]:
        return _network(lambda: self.url, lambda: None)

    def steps(self) -> Sequence[_Step]:
        return [*self.way(), *self._reading(), ("write", self._no)]

    def _no(self) -> str:
        raise _Nothing("web servers are read only")


class _S3(_Place):
    @property
    def s3(self) -> S3DataStore:
        return cast("S3DataStore", self.store)

    def way(self) -> Sequence[_Step]:
        return [*_network(self._server, net.s3_ca_file), ("credentials", self._credentials)]

    def _server(self) -> str:
        return str(self.s3.fs.s3.meta.endpoint_url)

    def _writing(self) -> Sequence[_Step]:
        steps = list(super()._writing())
        steps.insert(1, ("multipart upload", self._multipart))
        return steps

    def _credentials(self) -> str:
        signer = self.s3.fs.s3._request_signer
        found = getattr(signer, "_credentials", None)
        region = self.s3.fs.s3.meta.region_name
        if found is None:
            if self.s3.fs.anon:
                return "none are sent, as wanted"
            raise AuthError(
                "there are no credentials",
                url=self.url,
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose a profile (AWS_PROFILE or --profile)",
            )
        session = self.s3.session()
        said = f"from {found.method}, region {region}"
        if session is None or session.end is None:
            return said
        left = session.end.timestamp() - time.time()
        said = f"{said}, good until {session.end:%Y-%m-%d %H:%M} UTC"
        if left < _SOON:
            raise _Warning(f"{said}: soon over", "renew them before a long run")
        return said

    def _multipart(self) -> str:
        where: dict[str, Any] = {"Bucket": self.s3.bucket, "Key": self.name}
        from atdata_cli.stores.s3_errors import translated

        with translated(self.url, doing="begin an upload to"):
            upload = self.s3._call("create_multipart_upload", **where)
            self.s3._call("abort_multipart_upload", UploadId=upload["UploadId"], **where)
        return "begun and aborted: large shards need it, and nothing stays of them if they fail"


def _fetched(url: str) -> bytes:
    """What anybody who has a URL gets."""
    import httpx

    from atdata_cli.atproto.transport import transport_error

    plain = redact(url)
    try:
        with httpx.Client(**net.httpx_options()) as client:
            answer = client.get(url)
    except httpx.HTTPError as error:
        raise transport_error(error, plain) from error
    if answer.status_code != 200:
        raise AtdataError(f"the signed URL is answered with HTTP {answer.status_code}", url=plain)
    return answer.content


def iam_policy(bucket: str, prefix: str, *, read_only: bool = False) -> Mapping[str, Any]:
    """The smallest policy of AWS with which all commands work below a prefix.

    Parameters
    ----------
    read_only : for those who only read.
    """
    plain = prefix.strip("/")
    below = f"{plain}/" if plain else ""
    listing: dict[str, Any] = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}"],
    }
    if below:
        listing["Condition"] = {"StringLike": {"s3:prefix": [plain, f"{below}*"]}}
    objects = ["s3:GetObject"]
    statements = [listing]
    if not read_only:
        objects += ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        # abort and prune look for unfinished uploads; this action knows no condition by prefix.
        statements.append(
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucketMultipartUploads"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            }
        )
    # It is looked whether the prefix itself is an object.
    names = [f"{below}*", plain] if below else ["*"]
    resources = [f"arn:aws:s3:::{bucket}/{name}" for name in names]
    statements.append({"Effect": "Allow", "Action": objects, "Resource": resources})
    return {"Version": "2012-10-17", "Statement": statements}


# -- accounts of the AT Protocol


class _Account(_Patient):
    """An account's personal data server: a record with a blob is written, read by everybody, and deleted."""

    def __init__(self, reference: Reference, *, read_only: bool) -> None:
        self.authority = reference.authority
        self.read_only = read_only
        self.key = f"doctor.{secrets.token_hex(8)}"
        self._server = ""
        self._session: Session | None = None
        self._record: dict[str, Any] = {}
        self._written = False

    def steps(self) -> Sequence[_Step]:
        first = [("account", self._identity), *_network(lambda: self._server, lambda: None)]
        if self.read_only:
            return [*first, ("list", self._list)]
        return [
            *first,
            ("credentials", self._credentials),
            ("list", self._list),
            ("put", self._put),
            ("conditional put", self._put_again),
            ("read back", self._read_back),
            ("sign", self._public),
            ("delete", self._delete),
        ]

    def _identity(self) -> str:
        from atdata_cli.atproto.identity import resolve

        if self.authority == LOCAL_INDEX:
            raise UsageError("the local index is a file", url="@local", hint="doctor FOLDER looks at its folder")
        found = resolve(self.authority)
        self._server = found.pds_url
        return f"{found.handle} is {found.did}, at {found.pds_url}"

    def _credentials(self) -> str:
        from atdata_cli import config
        from atdata_cli.atproto.blobs import blob_limit
        from atdata_cli.atproto.session import Session

        self._session = Session.from_environment_or_file(self.authority)
        how = "by the environment's password" if config.get("ATDATA_PASSWORD") else "accepted"
        return f"{how}; blobs of up to {blob_limit(self._session):,} bytes"

    @property
    def session(self) -> Session:
        from atdata_cli.atproto.session import Session

        return self._session or Session.anonymous(self.authority)

    def _list(self) -> str:
        from atdata_cli.atproto.records import ENTRY

        found = sum(1 for _ in self.session.list_records(ENTRY))
        return f"{found:,} entries"

    def _put(self) -> str:
        from atdata_cli.atproto.blobs import UPLOAD_BLOB
        from atdata_cli.atproto.ledger import UPLOAD

        sent = self.session.send(UPLOAD_BLOB, lambda: [_CONTENT], len(_CONTENT), "application/octet-stream")
        self._record = {"$type": UPLOAD, "job": "doctor", "name": "doctor", "blobs": [sent["blob"]]}
        self._written = True
        self.session.put_record(UPLOAD, self.key, self._record)
        return "a blob, and a record that holds it"

    def _put_again(self) -> str:
        from atdata_cli.atproto.ledger import UPLOAD
        from atdata_cli.atproto.transport import SwapError

        try:
            self.session.put_record(UPLOAD, self.key, self._record | {"name": "another"})
        except SwapError:
            return "refused where a record is, as it should be: runs that overlap are safe"
        raise _Warning("the server stores over what is there", "let runs that publish one name not overlap (flock)")

    @property
    def _cid(self) -> str:
        return str(self._record["blobs"][0]["ref"]["$link"])

    def _read_back(self) -> str:
        from atdata_cli.atproto.blobs import open_blob

        with open_blob(self.session, self._cid) as file:
            if file.read() != _CONTENT:
                raise IntegrityError("what comes back is not what was stored", url=self._server)
        return f"{len(_CONTENT):,} bytes, the same"

    def _public(self) -> str:
        from atdata_cli.atproto.blobs import blob_url

        if _fetched(blob_url(self.session.pds_url, self.session.did, self._cid)) != _CONTENT:
            raise IntegrityError("the public URL gives something else", url=self._server)
        return "not needed: the public URL gives the same bytes to anybody"

    def _delete(self) -> str:
        from atdata_cli.atproto.ledger import UPLOAD

        self.session.delete_record(UPLOAD, self.key)
        self._written = False
        if self.session.get_record(UPLOAD, self.key) is not None:
            raise IntegrityError("the record is still there", url=self._server)
        return "allowed; nothing stays behind"

    def clean(self) -> None:
        from atdata_cli.atproto.ledger import UPLOAD

        if self._written and self._session is not None:
            with suppress(AtdataError):
                self._session.delete_record(UPLOAD, self.key)
