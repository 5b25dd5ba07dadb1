"""The kinds of places that datasets can be in: what each can do, and what it needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from atdata_cli.refs import is_unsafe
from atdata_cli.stores.registry import PACKAGES, entry_points

__all__ = ["Kind", "kinds"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of place.

    Attributes
    ----------
    schemes : of its URLs; the empty one is that of paths.
    store : what it is.
    package : to install for it; None if it is here with this program.
    ready : whether that is installed.
    reads, writes : whether datasets can be.
    streams : data can be read from the first byte on, without downloading them whole.
    signs : ``read_url`` gives what anybody can open: a signed or public URL.
    atomic : no half-written file is ever seen. None where only the store can tell, as for plugins.
    """

    schemes: Sequence[str]
    store: str
    package: str | None = None
    ready: bool = True
    reads: bool = True
    writes: bool = True
    streams: bool | None = True
    signs: bool | None = False
    atomic: bool | None = False


_BUILT_IN = (
    Kind(("", "file"), "folder on disk", atomic=True),
    Kind(("s3",), "S3: Amazon, MinIO, R2, SeaweedFS, Ceph and others", signs=True, atomic=True),
    Kind(("at",), "blobs of a PDS on the AT Protocol (@HANDLE/NAME)", signs=True, atomic=True),
    Kind(("http", "https"), "web server", writes=False, signs=True, atomic=None),
    Kind(("memory",), "memory of the process, for tests", atomic=True),
)

# Other file systems of fsspec: what they are, and the module that their package brings.
_OTHERS: Mapping[tuple[str, ...], tuple[str, str]] = {
    ("gs", "gcs"): ("Google Cloud Storage", "gcsfs"),
    ("az", "abfs", "abfss"): ("Azure Blob Storage", "adlfs"),
    ("hf",): ("Hugging Face Hub", "huggingface_hub"),
    ("sftp", "ssh"): ("server reached by SSH", "paramiko"),
    ("ftp",): ("FTP server", ""),
    ("webdav",): ("WebDAV server", "webdav4"),
    ("smb",): ("Windows share", "smbprotocol"),
    ("hdfs",): ("Hadoop; needs Java and libhdfs besides", "pyarrow"),
    ("webhdfs",): ("Hadoop over HTTP", "requests"),
    ("oss",): ("Alibaba object storage", "ossfs"),
    ("oci",): ("Oracle object storage", "ocifs"),
    ("tos",): ("Volcano Engine object storage", "tosfs"),
    ("lakefs",): ("lakeFS", "lakefs_spec"),
    ("dropbox",): ("Dropbox", "dropboxdrivefs"),
    ("gdrive",): ("Google Drive", "gdrive_fsspec"),
    ("box",): ("Box", "boxfs"),
    ("root",): ("XRootD", "fsspec_xrootd"),
    ("github",): ("files of a GitHub repository", "requests"),
    ("git",): ("files of a git repository", "pygit2"),
}
_READ_ONLY = frozenset({"github", "git"})
_SIGNING = frozenset({"gs", "az", "oss"})
_ATOMIC = frozenset({"sftp"})  # see stores/filesystem.py


def kinds() -> Iterator[Kind]:
    """All kinds at hand: built in, of installed plugins, of fsspec."""
    yield from _BUILT_IN
    taken = {scheme for kind in _BUILT_IN for scheme in kind.schemes}
    for point in sorted(entry_points(), key=lambda point: str(point.name)):
        if point.name not in taken and not is_unsafe(point.name):
            package = point.dist.name if point.dist else None
            yield Kind((point.name,), f"plugin {point.value}", package, streams=None, signs=None, atomic=None)
            taken.add(point.name)
    for schemes, (store, module) in _OTHERS.items():
        first = schemes[0]
        if first in taken:
            continue
        yield Kind(
            schemes,
            store,
            PACKAGES.get(first),
            ready=not module or importlib.util.find_spec(module) is not None,
            writes=first not in _READ_ONLY,
            signs=first in _SIGNING,
            atomic=first in _ATOMIC,
        )
