"""From a URL to the store that its scheme names.

A scheme is looked up in this order: built in, the entry points of installed plugins, the file systems of
fsspec. Whatever it needs is imported then.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import ne
from typing import Any, Protocol

from atdata_cli.errors import AtdataError, MissingExtraError, UsageError, reason_of
from atdata_cli.refs import local_path, parse, refuse_unsafe, scheme
from atdata_cli.stores.base import AbstractDataStore

__all__ = [
    "GROUP",
    "PACKAGES",
    "SCHEMES",
    "MissingPackageError",
    "StoreOptions",
    "entry_points",
    "is_scheme",
    "open_filesystem",
    "open_store",
    "place_key",
    "url_name",
]

GROUP = "atdata_cli.stores"
"""Entry-point group: the name is a scheme, the object is called as ``factory(url, options)`` and returns a
store and
the prefix inside it."""

SCHEMES: Mapping[str, str] = {
    "": "atdata_cli.stores.local:LocalStore",
    "file": "atdata_cli.stores.local:LocalStore",
    "s3": "atdata_cli.stores.s3:S3DataStore",
    "http": "atdata_cli.stores.http:HTTPStore",
    "https": "atdata_cli.stores.http:HTTPStore",
    "memory": "atdata_cli.stores.filesystem:FilesystemStore",
    "at": "atdata_cli.stores.pds:PDSBlobStore",
}
"""Built-in schemes and their classes, imported at first use. The empty one is that of bare paths."""

# What to install for fsspec's schemes, where its own message does not name the package on PyPI.
PACKAGES: Mapping[str, str] = {
    "abfs": "adlfs",
    "abfss": "adlfs",
    "adl": "adlfs",
    "az": "adlfs",
    "box": "boxfs",
    "dropbox": "dropboxdrivefs",
    "gcs": "gcsfs",
    "gdrive": "gdrive_fsspec",
    "git": "pygit2",
    "github": "requests",
    "gs": "gcsfs",
    "hdfs": "pyarrow",
    "hf": "huggingface_hub",
    "lakefs": "lakefs-spec",
    "oci": "ocifs",
    "oss": "ossfs",
    "root": "fsspec-xrootd",
    "sftp": "paramiko",
    "smb": "smbprotocol",
    "ssh": "paramiko",
    "tos": "tosfs",
    "wandb": "wandbfs",
    "webdav": "webdav4",
    "webhdfs": "requests",
}

# Words that mean something else before a colon, here or to fsspec, without a package of their own.
_OTHER_SCHEMES = frozenset({"atdata", "data", "dir", "ftp", "local", "s3a", "tar", "zip", "libarchive", "asynclocal"})

# How each cloud's file system is told to send no credentials.
_ANONYMOUS: Mapping[str, Mapping[str, Any]] = {
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
    "az": {"anon": True},
    "abfs": {"anon": True},
    "abfss": {"anon": True},
    "hf": {"token": False},
}


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What the command line says about how to reach a store.

    Attributes
    ----------
    endpoint_url : URL of an S3-compatible server.
    profile : profile of the AWS configuration.
    region : region of the bucket.
    anonymous : send no credentials.
    options : of ``-o KEY=VALUE``, for the store or file system.
    named : places that are reached otherwise, by :func:`place_key`: those of the user's named stores in this run.
    known : (place, how it is reached) of all named stores, for entries that name the same server.
    """

    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None
    anonymous: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    named: Mapping[str, StoreOptions] = field(default_factory=dict)
    known: Sequence[tuple[str, StoreOptions]] = ()

    def at(self, url: str) -> StoreOptions:
        """How the store of *url* is reached."""
        return self.named.get(place_key(url), self) if self.named else self


class MissingPackageError(MissingExtraError):
    """The file system of a scheme is known, but the package that implements it is not installed."""

    def __init__(self, kind: str, package: str, *, url: str | None = None) -> None:
        AtdataError.__init__(
            self, f"'{kind}:' URLs need the package '{package}'", url=url, hint=f"pip install {package}"
        )


class _Factory(Protocol):
    def __call__(self, url: str, options: StoreOptions) -> tuple[AbstractDataStore, str]: ...


def open_store(url: str, options: StoreOptions | None = None) -> tuple[AbstractDataStore, str]:
    """The store of a URL, and the place inside it that the URL names.

    Parameters
    ----------
    url : a path or URL, of a folder or of a file.
    options : how to reach the store.

    Returns
    -------
    The store, and the name or prefix inside it without slashes around it. For a path it is the last part: of
    ``/data/out`` the store is ``/data`` and the prefix ``out``.

    Raises
    ------
    UsageError : an unknown or refused scheme, or no bucket.
    MissingPackageError : fsspec knows the scheme, but its package is not installed.
    """
    refuse_unsafe(url)
    options = (options or StoreOptions()).at(url)
    if url in {"", "-"}:
        raise UsageError(
            "standard input and output are no stores" if url else "the URL is empty",
            url=url,
            hint="name a path or a URL",
        )
    kind = scheme(url)
    target = SCHEMES.get(kind)
    if target is not None:
        return _BUILDERS[target](target, url, options)
    factory = _plugin(kind, url)
    if factory is not None:
        return _checked(factory(url, options), url)
    return _filesystem_store(SCHEMES["memory"], url, options)


def open_filesystem(url: str, options: StoreOptions | None = None) -> tuple[Any, str, str]:
    """The fsspec file system of a URL that is neither local nor HTTP.

    Returns
    -------
    The file system; what comes before a name in its URLs (``sftp://host/``); the name, without slashes around
    it. Its paths are ``fs.root_marker`` and the name.
    """
    refuse_unsafe(url)
    options = (options or StoreOptions()).at(url)
    kind = scheme(url)
    if kind == "s3":
        bucket, key = _bucket(url)
        store: Any = _s3_store(SCHEMES["s3"], bucket, options)
        return store.fs, "s3://", f"{bucket}/{key}".rstrip("/")
    return _fsspec_filesystem(kind, url, options)


def _local_store(target: str, url: str, options: StoreOptions) -> tuple[AbstractDataStore, str]:
    path = local_path(url)
    if not path:
        raise UsageError("the path is empty", url=url, hint="name a path")
    root, name = os.path.split(path.rstrip("/"))
    cls = _load(target)
    if name in {"", ".", ".."}:  # the root folder, or a place that only the file system knows the name of
        return cls(path), ""
    return cls(root), name


def _s3(target: str, url: str, options: StoreOptions) -> tuple[AbstractDataStore, str]:
    bucket, key = _bucket(url)
    return _s3_store(target, bucket, options), key


def _s3_store(target: str, bucket: str, options: StoreOptions) -> AbstractDataStore:
    store: AbstractDataStore = _load(target)(
        bucket=bucket,
        endpoint_url=options.endpoint_url,
        region=options.region,
        profile=options.profile,
        anonymous=options.anonymous,
        options=options.options,
    )
    return store


def _bucket(url: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` URL."""
    rest = url[len("s3:") :]
    bucket, _, key = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not bucket:
        raise UsageError("the URL names no bucket", url=url, hint="write s3://BUCKET/PREFIX")
    return bucket, key.strip("/")


def _http(target: str, url: str, options: StoreOptions) -> tuple[AbstractDataStore, str]:
    from urllib.parse import unquote, urlsplit, urlunsplit

    parts = urlsplit(url)
    if not parts.netloc:
        raise UsageError("the URL names no server", url=url, hint="write https://HOST/PATH")
    folder, _, name = parts.path.rstrip("/").rpartition("/")
    root = urlunsplit((parts.scheme, parts.netloc, folder, parts.query, ""))
    return _load(target)(root), unquote(name, errors="surrogateescape")


def _pds(target: str, url: str, options: StoreOptions) -> tuple[AbstractDataStore, str]:
    reference = parse(url)
    if reference.kind != "blob":
        raise UsageError("this names no blob in a PDS", url=url, hint="at://DID/blob/CID; datasets are @HANDLE/NAME")
    from atdata_cli.atproto.values import blob_sha256

    blob_sha256(reference.key)  # servers answer a CID that is none with an error of their own
    return _load(target)(reference.authority), reference.key


def _filesystem_store(target: str, url: str, options: StoreOptions) -> tuple[AbstractDataStore, str]:
    kind = scheme(url)
    fs, base, name = _fsspec_filesystem(kind, url, options)
    return _load(target)(fs, protocol=kind, base=base), name


_Builder = Callable[[str, str, StoreOptions], tuple[AbstractDataStore, str]]
_BUILDERS: Mapping[str, _Builder] = {
    SCHEMES[""]: _local_store,
    SCHEMES["s3"]: _s3,
    SCHEMES["http"]: _http,
    SCHEMES["memory"]: _filesystem_store,
    SCHEMES["at"]: _pds,
}


def _load(target: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _fsspec_filesystem(kind: str, url: str, options: StoreOptions) -> tuple[Any, str, str]:
    from atdata_cli.stores.filesystem import fs_errors

    if "::" in url:
        raise UsageError("chained URLs are not supported", url=url, hint="unpack the outer file first")
    cls = _fsspec_class(kind, url)
    url = _plain(url)
    settings = {**_ANONYMOUS.get(kind, {})} if options.anonymous else {}
    settings |= {key: _setting(text) for key, text in options.options.items()}
    with fs_errors(url, "open the file system of"):
        try:
            fs = cls(**{**cls._get_kwargs_from_urls(url), **settings})
        except TypeError as error:
            raise UsageError(
                f"the file system does not take these options: {error}",
                url=url,
                hint="see the documentation of the fsspec implementation for its options",
            ) from error
        except ImportError as error:
            raise MissingPackageError(kind, PACKAGES.get(kind, kind), url=url) from error
        except OSError as error:
            if kind != "hdfs" or not re.search(r"lib(?:jvm|hdfs)", str(error)):
                raise
            hint = "install Java and Hadoop, and set JAVA_HOME, HADOOP_HOME and CLASSPATH as pyarrow's pages say"
            raise AtdataError(f"Hadoop's library cannot be loaded: {reason_of(error)}", url=url, hint=hint) from error
        name = url_name(fs, url)
    plain = url.rstrip("/")
    base = plain[: len(plain) - len(name)] if plain.endswith(name) else f"{kind}://"
    return fs, base if base.endswith("/") else f"{base}/", name


def is_scheme(kind: str) -> bool:
    """Whether ``kind:`` begins a URL of a store that is built in, or that a well-known package adds."""
    return kind in SCHEMES or kind in PACKAGES or kind in _OTHER_SCHEMES


def place_key(url: str) -> str:
    """Scheme and host or bucket of a URL: what one connection is good for."""
    kind = scheme(url)
    return url[: len(kind) + 1] + "/".join(url[len(kind) + 1 :].split("/")[:3])


def url_name(fs: Any, url: str) -> str:
    """The name that a URL has in its fsspec file system, without slashes around it."""
    return str(fs._strip_protocol(_plain(url))).removeprefix(fs.root_marker).strip("/")


def _plain(url: str) -> str:
    """A URL in the only form that fsspec takes apart: "memory:x" and "MEMORY://x" mean "memory://x"."""
    kind = scheme(url)
    return f"{kind}://{url[len(kind) + 1 :].removeprefix('//')}"


def _fsspec_class(kind: str, url: str) -> Any:
    from fsspec.registry import available_protocols, get_filesystem_class

    if kind not in available_protocols():
        raise _unknown(kind, url)
    try:
        return get_filesystem_class(kind)
    except ImportError as error:
        raise MissingPackageError(kind, PACKAGES.get(kind, kind), url=url) from error


def _setting(text: str) -> Any:
    """The value of ``-o KEY=VALUE``: JSON where it is JSON (``true``, ``22``, ``"22"``), else the text."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def entry_points() -> Any:
    """Those of the installed plugins."""
    # Reads the metadata of everything that is installed (about 40 ms): only for schemes that are not built
    # in.
    from importlib import metadata

    return metadata.entry_points(group=GROUP)


def _plugin(kind: str, url: str) -> _Factory | None:
    """The factory that an installed package registers for a scheme."""
    found = [point for point in entry_points() if point.name == kind]
    if not found:
        return None
    names = sorted(f"{point.value} (of {point.dist.name if point.dist else 'an unknown package'})" for point in found)
    if len(found) > 1:
        raise UsageError(
            f"'{kind}:' is registered by more than one plugin: {' and '.join(names)}",
            url=url,
            hint="uninstall one of them",
        )
    try:
        factory: _Factory = found[0].load()
    except (ImportError, AttributeError) as error:
        raise AtdataError(
            f"the plugin {names[0]} for '{kind}:' cannot be loaded: {error}", url=url, hint="install it again"
        ) from error
    return factory


def _checked(result: Any, url: str) -> tuple[AbstractDataStore, str]:
    """What a plugin returned, if it is what it should be."""
    if isinstance(result, tuple) and len(result) == 2:
        store, prefix = result
        if isinstance(store, AbstractDataStore) and isinstance(prefix, str):
            return store, prefix
    raise AtdataError(
        f"the plugin for '{scheme(url)}:' does not return a store and a prefix",
        url=url,
        hint="tell its author",
    )


def _unknown(kind: str, url: str) -> UsageError:
    from difflib import get_close_matches

    from fsspec.registry import available_protocols

    known = {*SCHEMES, *available_protocols(), *(point.name for point in entry_points())} - {""}
    one_letter_off = [name for name in sorted(known) if len(name) == len(kind) and sum(map(ne, name, kind)) == 1]
    near = get_close_matches(kind, sorted(known), n=1, cutoff=0.7) or one_letter_off
    hint = f"did you mean '{near[0]}:'?" if near else f"no plugin for it is installed, no [stores.{kind}] configured."
    return UsageError(f"the scheme '{kind}:' is not known", url=url, hint=f"{hint} A file is named ./{url}")
