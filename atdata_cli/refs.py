"""What a person types to name a file, a folder or a URL: pure text, nothing here touches a disk or a network.

Every run of the command line imports this module, so patterns are compiled at first use, and ``urllib``
and ``unicodedata`` imported inside functions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from atdata_cli.errors import UsageError
from atdata_cli.redaction import redact

__all__ = [
    "LOCAL_INDEX",
    "MANIFEST",
    "MAX_EXPANSION",
    "Reference",
    "as_name",
    "basename",
    "check_name",
    "expand_all",
    "expand_braces",
    "fixed_folder",
    "in_index",
    "is_glob",
    "is_unsafe",
    "join",
    "local_path",
    "names_below",
    "parent",
    "parse",
    "printable",
    "redact",
    "refuse_unsafe",
    "scheme",
    "stem",
    "valid_name",
]

MANIFEST = "manifest.json"
"""The file in a dataset's folder that says what it consists of, and stands for it as a reference."""

MAX_EXPANSION = 1_000_000
"""How many names one brace pattern may stand for."""

_MAX_EXPANDED_TEXT = 1 << 28  # characters of all names together: a long pattern reaches it before the count
_MAX_NESTING = 50  # braceexpand recurses once a level

# "word://" as in RFC 3986 (and "_", which fsspec has), or "word:" without slashes as in "file:x", "pipe:x".
# The second form is stricter, so that "12:30.csv", "rows.jsonl:7" and "C:\\x" stay paths.
_SCHEME = r"([A-Za-z][A-Za-z0-9+._-]+)://|([A-Za-z][A-Za-z0-9+-]+):"

_UNSAFE = {
    "pipe": "webdataset gives it to a shell",
    "exec": "it names a command",
    "shell": "it names a command",
    "sh": "it names a command",
    "bash": "it names a command",
    "cmd": "it names a command",
    "popen": "it names a command",
    "subprocess": "it names a command",
    "system": "it names a command",
    "python": "it names code",
    "eval": "it names code",
    "ais": "webdataset runs the ais command for it",
    "htgs": "webdataset runs a command for it",
    "scp": "webdataset runs a command for it",
    "dvc": "it runs git and the code of the repository that it names",
    "dask": "it exchanges pickles with the workers that it names",
    "reference": "its index holds templates that are evaluated and may point anywhere",
    "jupyter": "it drives a server that runs code",
    "jlab": "it drives a server that runs code",
    "generic": "it passes the rest on to any other scheme",
    "cached": "it keeps state of earlier runs in a folder that it may be told",
    "blockcache": "it keeps state of earlier runs in a folder that it may be told",
    "filecache": "it keeps state of earlier runs in a folder that it may be told",
    "simplecache": "it keeps state of earlier runs in a folder that it may be told",
}

# What a terminal obeys, or what shows text other than it is: controls, soft hyphen, bidi marks and overrides,
# line separators, invisible format characters, the tag block, surrogates. The joiners U+200C/D are text.
_DANGEROUS = (
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)

_GLOB = r"[*?]|\[!?\]?[^\]]*\]"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"

# Endings that say how a file is stored. Only these are taken off a name: "data.v1" is a name, not a "data".
_COMPRESSED = frozenset({".gz", ".zst", ".zstd", ".bz2", ".xz", ".lz4"})
_FORMATS = frozenset(
    {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".msgpack", ".zip", ".tar", ".tgz"}
    | {".parquet", ".pq", ".arrow", ".arrows", ".feather", ".ipc"}
)


def scheme(text: str) -> str:
    """The URL scheme in lower case; empty for a path. One letter is a Windows drive, not a scheme."""
    match = re.match(_SCHEME, text)
    return (match[1] or match[2]).lower() if match else ""


def is_unsafe(kind: str) -> bool:
    """Whether URLs of a scheme are refused."""
    return kind.lower() in _UNSAFE


def refuse_unsafe(url: str) -> None:
    """Raise :class:`UsageError` for a URL that webdataset or fsspec would run, evaluate or unpickle.

    Each part of a chain (``simplecache::s3://…``, as fsspec has it) is looked at. White space and control
    characters are removed first, as ``urllib.parse`` does, so that they cannot hide a scheme.
    """
    plain = re.sub(r"[\t\r\n]", "", url).lstrip("".join(map(chr, range(33))))
    chained = "::" in plain
    for part in plain.split("::"):
        # In a chain a bare word is a scheme too.
        word = scheme(part) or (part.lower() if chained else "")
        if word in _UNSAFE:
            raise UsageError(
                f"'{word}:' URLs are refused: {_UNSAFE[word]}",
                url=url,
                hint="run the command yourself and give its output as '-', or name the file by its own URL",
            )


def printable(text: str) -> str:
    """*text* made harmless for a terminal or a log: one line, no escapes, no reordering, valid Unicode.

    A byte that is not UTF-8 (in a file's name) shows as ``\\xNN``, other characters as ``\\uNNNN``.
    """
    if text.isprintable():
        return text
    return re.sub(_DANGEROUS, _escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: the byte that the file system gave
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape" if code < 0xD800 else "ascii", "backslashreplace").decode("ascii")


def is_glob(text: str) -> bool:
    """Whether *text* holds ``*``, ``?`` or ``[…]``.

    For HTTP only ``*`` in the path counts: ``?`` begins a query there, and ``[…]`` is an IPv6 address.
    """
    kind = scheme(text)
    if kind in {"http", "https"}:
        return "*" in re.split(r"[?#]", text, maxsplit=1)[0]
    return re.search(_GLOB, text) is not None


def expand_braces(text: str) -> list[str]:
    """The names that ``{000..009}`` and ``{a,b}`` in *text* stand for, in order.

    Unbalanced braces are part of a name, as in a shell. A backslash takes the meaning from a brace.

    Raises
    ------
    UsageError : more than :data:`MAX_EXPANSION` names.
    """
    if "{" not in text:
        return [text]
    # Counted first: braceexpand makes lists of every alternative before it gives the first name.
    count = _count_expansion(text)
    if count is None:
        return [text]
    if count > MAX_EXPANSION or count * len(text) > _MAX_EXPANDED_TEXT:
        raise UsageError(
            "the brace pattern stands for too many names",
            url=text,
            hint=f"give at most {MAX_EXPANSION:,} at once, or name the folder",
        )
    from braceexpand import braceexpand

    return list(braceexpand(text))


def expand_all(texts: Iterable[str]) -> list[str]:
    """:func:`expand_braces` of several, one after another: what an index holds may be somebody's joke.

    Raises
    ------
    UsageError : more than :data:`MAX_EXPANSION` names altogether.
    """
    names: list[str] = []
    for text in texts:
        names += expand_braces(text)
        if len(names) > MAX_EXPANSION:
            raise UsageError("the brace patterns stand for too many names", url=text, hint="name the folder instead")
    return names


def _count_expansion(text: str) -> int | None:
    """How many names ``braceexpand`` would make, at most; None if the braces are unbalanced.

    A sum over alternatives and a product over what stands side by side, kept on a stack of open braces.
    """
    stack: list[tuple[int, int, int]] = []  # (sum of finished alternatives, product so far, where the brace is)
    total, product, position = 0, 1, 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            if len(stack) >= _MAX_NESTING:
                raise UsageError(
                    f"braces are nested more than {_MAX_NESTING} deep", url=text[:200], hint="name the folder instead"
                )
            stack.append((total, product, position))
            total, product = 0, 1
        elif character == "," and stack:
            total, product = total + product, 1
        elif character == "}":
            if not stack:
                return None
            inner = text[stack[-1][2] + 1 : position]
            size = _range_size(inner) or total + product
            total, product, _ = stack.pop()
            product *= size
            # Huge numbers would make this quadratic; what is beyond the limit stays beyond it.
            product = min(product, MAX_EXPANSION + 1)
        position += 1
    return None if stack else total + product


def _range_size(inner: str) -> int | None:
    """How many values ``0..9``, ``00..10..2`` or ``a..z`` has; None if *inner* is no range."""
    match = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?", inner)
    if match:
        if len(inner) > 60:
            return MAX_EXPANSION + 1  # Python refuses to convert thousands of digits
        return abs(int(match[2]) - int(match[1])) // (int(match[3] or 1) or 1) + 1
    return 52 if re.fullmatch(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?", inner) else None


def join(base: str, name: str) -> str:
    """The path or URL of *name* (with ``/``, relative) below the folder *base*.

    For HTTP the name is percent-encoded, and the query of *base* (a signature, a token) is kept behind it.
    """
    if scheme(base) in {"http", "https"}:
        from urllib.parse import quote

        path, query = _split_query(base)
        return f"{path.rstrip('/')}/{quote(name, safe=_PLAIN_IN_PATH, errors='surrogateescape')}{query}"
    if not base or base.endswith("/"):
        return base + name
    return f"{base}/{name}"


_PLAIN_IN_PATH = "/~!$&'()*+,;=:@"  # pchar of RFC 3986, and the slash


def _split_query(url: str) -> tuple[str, str]:
    """An HTTP URL up to its path, and the query and fragment with their ``?`` or ``#``."""
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    return path, url[len(path) :]


def basename(text: str) -> str:
    """The last part of a path or URL, without slashes at its end; the host or bucket if there is no path."""
    kind = scheme(text)
    if kind in {"http", "https"}:
        from urllib.parse import unquote

        return unquote(_split_query(text)[0].rstrip("/").rpartition("/")[2], errors="surrogateescape")
    rest = text[len(kind) + 1 :] if kind else text
    return rest.rstrip("/").rpartition("/")[2]


def parent(text: str) -> str:
    """The folder that a path or URL is in, with its slash; empty for a bare name.

    For HTTP the query stays behind it, where :func:`join` expects it.
    """
    path, query = _split_query(text) if scheme(text) in {"http", "https"} else (text, "")
    head, slash, _ = path.rstrip("/").rpartition("/")
    return head + slash + query


def names_below(texts: Sequence[str], folders: Iterable[str] | None = None) -> list[str]:
    """What each path or URL is called below the deepest folder that holds all of them; of each server by itself.

    So files of one folder have their plain names, and the names are the same wherever the folder lies.

    Parameters
    ----------
    folders : what the deepest folder has to hold; by default the parents of *texts*.
    """
    located = [_located(text) for text in texts]
    if folders is None:
        held = [(place, path.rpartition("/")[0]) for place, path in located]
    else:
        held = [_located(folder) for folder in folders]
    paths: dict[str, list[str]] = {}
    for place, path in held:
        paths.setdefault(place, []).append(f"{path.rstrip('/')}/")
    # commonpath would take a name on a store for another one: "a//b" for "a/b".
    common = {place: os.path.commonprefix(found).rpartition("/")[0] + "/" for place, found in paths.items()}  # noqa: RUF071
    return [
        path.removeprefix(common[place]) or basename(text)
        if path.startswith(common.get(place, "\0"))
        else basename(text)
        for text, (place, path) in zip(texts, located, strict=True)
    ]


def _located(text: str) -> tuple[str, str]:
    """The server or bucket that a path or URL is on, and the way from its root, decoded; no server for a path."""
    kind = scheme(text)
    if kind in {"", "file"}:
        return "", os.path.abspath(local_path(text))
    path = _split_query(text)[0] if kind in {"http", "https"} else text
    if kind in {"http", "https"}:
        from urllib.parse import unquote

        path = unquote(path, errors="surrogateescape")
    place, _, rest = path[len(kind) + 1 :].lstrip("/").partition("/")
    return f"{kind}:{place}", "/" + rest


def fixed_folder(pattern: str) -> str:
    """The folder that all matches of a glob are in: what stands before the first part with a wildcard."""
    return re.split(_GLOB, pattern, maxsplit=1)[0].rpartition("/")[0] + "/" if "/" in pattern else "./"


def stem(text: str) -> str:
    """:func:`basename` without the ending of its format and compression: ``rows`` of ``s3://b/x/rows.jsonl.gz``.

    An ending that is no format stays (``data.v1``), and so does a folder's, given with its slash.
    """
    name = basename(text)
    if text.endswith("/"):
        return name
    for endings in (_COMPRESSED, _FORMATS):
        base, dot, ending = name.rpartition(".")
        if base and (dot + ending).lower() in endings:
            name = base
    return name


def valid_name(name: str) -> bool:
    """Whether *name* may name a dataset: ``[A-Za-z0-9][A-Za-z0-9._-]{0,199}``."""
    return re.fullmatch(_NAME, name) is not None


def as_name(text: str) -> str:
    """The valid dataset name nearest to *text*: accents are taken off, other characters become ``-``."""
    if valid_name(text):
        return text
    import unicodedata

    plain = unicodedata.normalize("NFKD", text[:1000])
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip("._-")[:200]
    return plain.rstrip("._-") or "dataset"


def local_path(text: str) -> str:
    """The path of a bare path or a ``file:`` URL, as typed; percent signs mean themselves, as in fsspec.

    Raises
    ------
    UsageError : a ``file://`` URL whose host is another machine (or a relative path after two slashes).
    """
    if scheme(text) != "file":
        return text
    path = text[len("file:") :]
    if not path.startswith("//"):
        return path
    host, slash, rest = path[2:].partition("/")
    if host not in {"", "localhost"}:
        raise UsageError(
            f"'file://{host}' names another machine",
            url=text,
            hint="write file:///absolute/path, or the path alone",
        )
    return slash + rest


def check_name(name: str, *, url: str | None = None) -> str:
    """*name* itself if it is safe inside a store: relative, without ``..`` or NUL, and encodable.

    Names come from manifests and listings that others wrote; one that leaves its folder is never followed.
    """
    problem = None
    if "\0" in name:
        problem = "holds a NUL character"
    elif name.startswith("/"):
        problem = "is absolute"
    elif ".." in name.split("/"):
        problem = "leaves its folder"
    elif "." in name.split("/"):
        problem = "has a part '.', which stores take for another name or for none"
    else:
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            problem = "is not valid Unicode"
    if problem:
        raise UsageError(f"the name {printable(name)!r} {problem}", url=url, hint="use a relative name without '..'")
    return name


LOCAL_INDEX = "local"
"""The authority of the index on this machine, in ``@local/NAME``."""

_ENTRY_COLLECTION = "science.alt.dataset.entry"
_DID = r"did:(?:plc:[a-z2-7]{24}|web:[A-Za-z0-9.-]+(?:%3A[0-9]+)?)"
_HANDLE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_RECORD_KEY = r"[A-Za-z0-9._:~-]{1,512}"
_CID = r"[a-z2-7]{10,120}"
_VERSION = r"[0-9A-Za-z][0-9A-Za-z.+-]{0,99}"


class Reference(NamedTuple):
    """What a text names.

    Attributes
    ----------
    kind : ``place`` is a path, URL or pattern, or a manifest at one; ``dataset`` a name in an index; ``index`` a
        whole index; ``entry`` a record; ``blob`` a shard in a PDS.
    text : as typed.
    authority : ``local``, a handle or a DID; of all kinds but ``place``.
    name : of a ``dataset``.
    version : of a ``dataset``; None for its newest.
    key : record key of an ``entry``, CID of a ``blob``.
    """

    kind: Literal["place", "dataset", "index", "entry", "blob"]
    text: str
    authority: str = ""
    name: str = ""
    version: str | None = None
    key: str = ""


def in_index(text: str) -> bool:
    """Whether a reference is to an index or a PDS, not to a place."""
    return text.startswith("@") or scheme(text) in ("at", "atdata")


def parse(text: str) -> Reference:
    """The one parser of references.

    Paths and URLs, with braces, globs or ``manifest.json`` · ``@local`` · ``@HANDLE`` · ``@local/NAME[@VERSION]`` ·
    ``@HANDLE/NAME[@VERSION]`` · ``at://HANDLE/NAME[@VERSION]`` ·
    ``at://DID-or-HANDLE/science.alt.dataset.entry/RKEY`` ·
    ``at://DID/blob/CID`` · ``atdata://AUTHORITY/dataset/NAME[@VERSION]``.

    Raises
    ------
    UsageError : the text is none of these, or names a scheme that runs commands.
    """
    if not text:
        raise UsageError("an empty reference", hint="name a path, a URL, or @local/NAME")
    if text.startswith("@"):
        return _indexed(text, text[1:])
    kind = scheme(text)
    if kind == "at":
        return _at_uri(text)
    if kind == "atdata":
        return _atdata_uri(text)
    for url in re.split(r"[{},]", text) if "{" in text else [text]:
        refuse_unsafe(url)
    return Reference("place", text)


def _indexed(text: str, rest: str) -> Reference:
    """``AUTHORITY`` or ``AUTHORITY/NAME[@VERSION]``."""
    authority, slash, named = rest.partition("/")
    if authority != LOCAL_INDEX and not re.fullmatch(f"{_HANDLE}|{_DID}", authority):
        raise UsageError(
            f"{authority!r} is neither 'local' nor a handle",
            url=text,
            hint="@local/NAME for the index on this machine, @HANDLE/NAME for an account; ./@… for a path",
        )
    if not slash or not named:
        return Reference("index", text, authority)
    name, at, version = named.partition("@")
    if not valid_name(name):
        whose = LOCAL_INDEX if authority == LOCAL_INDEX else "HANDLE"
        raise UsageError(f"{name!r} cannot name a dataset", url=text, hint=f"@{whose}/NAME or @{whose}/NAME@VERSION")
    if at and not re.fullmatch(_VERSION, version):
        raise UsageError(f"{version!r} is no version", url=text, hint="for example 1.0.0")
    return Reference("dataset", text, authority, name, version if at else None)


def _at_uri(text: str) -> Reference:
    rest = text.removeprefix("at://")
    if rest == text:
        raise UsageError("an AT URI begins with at://", url=text)
    authority, _, path = rest.partition("/")
    collection, slash, key = path.partition("/")
    if not slash:
        return _indexed(text, rest)
    if not re.fullmatch(f"{_HANDLE}|{_DID}", authority):
        raise UsageError(
            f"{authority!r} is neither a DID nor a handle", url=text, hint="as at://did:plc:… or at://name.example.com"
        )
    if collection == "blob" and re.fullmatch(_CID, key):
        return Reference("blob", text, authority, key=key)
    if collection == _ENTRY_COLLECTION and re.fullmatch(_RECORD_KEY, key):
        return Reference("entry", text, authority, key=key)
    raise UsageError(
        "this AT URI names no dataset",
        url=text,
        hint=f"at://AUTHORITY/{_ENTRY_COLLECTION}/RKEY, at://DID/blob/CID and at://HANDLE/NAME do",
    )


def _atdata_uri(text: str) -> Reference:
    match = re.fullmatch(r"atdata://([^/]+)/dataset/([^/]+)", text)
    if match is None:
        raise UsageError("this atdata URI names no dataset", url=text, hint="atdata://AUTHORITY/dataset/NAME@VERSION")
    return _indexed(text, f"{match[1]}/{match[2]}")
