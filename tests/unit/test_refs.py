"""What people type, and what hostile text must not do."""

import subprocess
import sys
import unicodedata

import pytest
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli import refs
from atdata_cli.errors import UsageError

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/x", "s3"),
        ("S3://bucket/x", "s3"),
        ("memory:x", "memory"),
        ("file:x", "file"),
        ("pipe:cat x", "pipe"),
        ("at://did:plc:abc/x", "at"),
        ("arrow_hdfs://x", "arrow_hdfs"),
        ("", ""),
        ("-", ""),
        ("out/", ""),
        ("C:\\data", ""),
        ("c:/data", ""),
        ("12:30.csv", ""),
        ("rows.jsonl:7", ""),
        ("./s3:x", ""),
        ("a b:c", ""),
        ("@local/name", ""),
    ],
)
def test_scheme(text, expected):
    assert refs.scheme(text) == expected


@pytest.mark.parametrize(
    "url",
    [
        "pipe:cat x",
        "PIPE:cat x",
        "pi\tpe:cat x",
        " \x00pipe:cat x",
        "pipe://x",
        "exec:ls",
        "shell:ls",
        "dask::s3://bucket/x",
        "simplecache::https://host/x",
        "zip://a::filecache::s3://b/x",
        "reference://x",
        "s3://b/x::pipe:ls",
    ],
)
def test_what_runs_commands_is_refused(url):
    with pytest.raises(UsageError, match="refused"):
        refs.refuse_unsafe(url)


@pytest.mark.parametrize(
    "url",
    ["s3://b/x", "out/pipe", "pipe", "http://[::1]:8000/x", "a::b", "zip://a.csv::s3://b/x.zip", "./pipe:x"],
)
def test_what_is_harmless_passes(url):
    refs.refuse_unsafe(url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pw@host/x", "https://***@host/x"),
        ("https://ghp_token@host/x", "https://***@host/x"),
        ("s3://AKIAABCDEFGHIJKLMNOP:ab/c+d@bucket/x", "s3://***@bucket/x"),
        ("sftp://me@host/x", "sftp://me@host/x"),
        ("abfs://container@account/x", "abfs://container@account/x"),
        ("http://host:8080/@me/x", "http://host:8080/@me/x"),
        ("at://did:plc:abc/name@2", "at://did:plc:abc/name@2"),
        ("https://h/x?X-Amz-Signature=ab&v=1", "https://h/x?X-Amz-Signature=***&v=1"),
        ("https://h/x?v=1&x-amz-security-token=a%2Fb", "https://h/x?v=1&x-amz-security-token=***"),
        ("https://h/x?sv=1&sig=a%3D&sp=r", "https://h/x?sv=1&sig=***&sp=r"),
        ("https://h/x?AWSAccessKeyId=A&Signature=B", "https://h/x?AWSAccessKeyId=***&Signature=***"),
        ("cannot read 'https://h/x?token=abc': gone", "cannot read 'https://h/x?token=***': gone"),
        ("https://h/x?design=1&mysig=2", "https://h/x?design=1&mysig=2"),
    ],
)
def test_redact(text, expected):
    assert refs.redact(text) == expected
    assert refs.redact(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain name.tar", "plain name.tar"),
        ("a\x1b[31mred\r\n", "a\\x1b[31mred\\r\\n"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("日本語　x", "日本語　x"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        ("\U000e0041", "\\U000e0041"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_printable(text, expected):
    assert refs.printable(text) == expected


@given(ANY_TEXT)
def test_printable_text_is_valid_one_line_and_stable(text):
    shown = refs.printable(text)
    shown.encode("utf-8")
    assert refs.printable(shown) == shown
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(character) for character in shown} & {
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["*.jsonl", "a?.csv", "[ab].csv", "[!a].csv", "s3://b/**/x", "https://h/*.tar"])
def test_globs(text):
    assert refs.is_glob(text)


@pytest.mark.parametrize("text", ["a.csv", "a[.csv", "a].csv", "https://h/x?a=*", "http://[::1]/x", "{a,b}"])
def test_no_globs(text):
    assert not refs.is_glob(text)


@given(st.text("{},.a01-\\", max_size=14))
def test_braces_expand_as_braceexpand_does(text):
    count = refs._count_expansion(text)
    if count is None:
        assert refs.expand_braces(text) == [text]
        return
    expected = list(braceexpand(text)) if "{" in text else [text]
    assert refs.expand_braces(text) == expected
    assert len(expected) <= count


def test_braces():
    assert refs.expand_braces("s-{08..10}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar"]
    assert refs.expand_braces("odd{name.csv") == ["odd{name.csv"]
    assert refs.expand_braces("odd}{name.csv") == ["odd}{name.csv"]
    assert refs._count_expansion("{1..10..3}{a,b{1,2}}") == 12
    assert len(refs.expand_braces("{1..1000000}")) == refs.MAX_EXPANSION


@pytest.mark.parametrize(
    "text",
    [
        "{0..1000000}",
        "{1..99999999999999999999}",
        "{{1..1000}{1..1000}{1..1000},a}",
        "{a,b}" * 64,
        "{1.." + "9" * 5000 + "}",
        "{" * 2000 + "}" * 2000,
        "{1..1000000}" + "x" * 100_000,
    ],
)
def test_braces_that_would_not_end(text):
    with pytest.raises(UsageError):
        refs.expand_braces(text)


@pytest.mark.parametrize(
    ("base", "name", "expected"),
    [
        ("", "a", "a"),
        ("out", "a", "out/a"),
        ("out/", "a/b", "out/a/b"),
        ("/", "a", "/a"),
        ("s3://b", "a", "s3://b/a"),
        ("s3://b/x?y", "a", "s3://b/x?y/a"),
        ("https://h/x/?sig=1", "a b#.tar", "https://h/x/a%20b%23.tar?sig=1"),
    ],
)
def test_join(base, name, expected):
    assert refs.join(base, name) == expected


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("a/b.txt", "a/"),
        ("a/b/", "a/"),
        ("b.txt", ""),
        ("/b", "/"),
        ("s3://bucket/a/b", "s3://bucket/a/"),
        ("https://host/a/b?sig=c/d#e/f", "https://host/a/?sig=c/d#e/f"),
    ],
)
def test_parent(text, folder):
    assert refs.parent(text) == folder
    assert refs.join(folder, refs.basename(text)) == text.rstrip("/")


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["a/cat/1.jpg", "a/cab/1.jpg"], ["cat/1.jpg", "cab/1.jpg"]),
        (["a/1.jpg", "./b/../a/2.jpg"], ["1.jpg", "2.jpg"]),
        (["/1.jpg", "/a/2.jpg"], ["1.jpg", "a/2.jpg"]),
        (["s3://b/a/x/1", "s3://b/a/y/1", "s3://c/z/1"], ["x/1", "y/1", "1"]),
        (["https://h/a%20b/x/1?t=/q", "https://h/a%20b/y/%C3%A9?t=/q"], ["x/1", "y/é"]),
        (["memory://b/x/1", "memory:/b/y/1"], ["x/1", "y/1"]),
        (["run:7.csv"], ["7.csv"]),
    ],
)
def test_names_below(texts, names):
    assert refs.names_below(texts) == names


@given(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=30))
def test_an_http_name_comes_back(name):
    assert refs.basename(refs.join("https://host/x?sig=1", name)) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://b/x/rows.jsonl.gz", "rows"),
        ("rows.csv", "rows"),
        ("a.b.c.parquet", "a.b.c"),
        ("data.v1", "data.v1"),
        ("data.csv/", "data.csv"),
        ("x.gz", "x"),
        (".gz", ".gz"),
        ("X.TAR.ZST", "X"),
        ("s3://bucket", "bucket"),
        ("s3://bucket/", "bucket"),
        ("https://h/x/rows.jsonl?sig=a/b", "rows"),
        ("/data/photos", "photos"),
        ("file:rows.csv", "rows"),
    ],
)
def test_stem(text, expected):
    assert refs.stem(text) == expected


@given(ANY_TEXT)
def test_any_text_becomes_a_valid_name(text):
    name = refs.as_name(text)
    assert refs.valid_name(name)
    assert refs.as_name(name) == name


def test_names():
    assert refs.as_name("Café photos (1)") == "Cafe-photos-1"
    assert refs.as_name("日本") == "dataset"
    assert refs.valid_name("a" * 200)
    assert not refs.valid_name("a" * 201)
    assert not refs.valid_name(".a")
    assert not refs.valid_name("a\n")


def test_file_urls():
    assert refs.local_path("file:///a%20b") == "/a%20b"
    assert refs.local_path("file://localhost/a") == "/a"
    assert refs.local_path("file:a/b") == "a/b"
    assert refs.local_path("a:b/c") == "a:b/c"
    with pytest.raises(UsageError, match="another machine"):
        refs.local_path("file://out/x")


@pytest.mark.parametrize("name", ["/a", "../a", "a/../b", "a/..", "a\0b", "\ud800"])
def test_names_that_leave_a_store(name):
    with pytest.raises(UsageError):
        refs.check_name(name)


@pytest.mark.parametrize("name", ["a", "a/b", "..a", "a..b/c", ".atdata/job.json", "caf\udce9", ""])
def test_names_that_stay(name):
    assert refs.check_name(name) == name


def test_the_import_is_light():
    code = (
        "import __future__, sys, re, enum, os, errno, typing; before = set(sys.modules); import atdata_cli.refs\n"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('atdata_cli')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_patterns_together_are_bounded():
    assert refs.expand_all(["a-{0..2}", "b", "{c,d}"]) == ["a-0", "a-1", "a-2", "b", "c", "d"]
    with pytest.raises(UsageError, match="too many"):
        refs.expand_all(["a-{1..400000}"] * 10_000)
