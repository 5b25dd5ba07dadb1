"""URLs for WebDataset: brace patterns, the one string, paths and URLs of each store, presigning, checking."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import pickle
import tarfile
import urllib.parse
from datetime import UTC, datetime, timedelta

import pytest
import webdataset
from braceexpand import braceexpand
from hypothesis import example, given
from hypothesis import strategies as st
from webdataset.shardlists import expand_urls

from atdata_cli import S3DataStore
from atdata_cli.errors import AuthError, IntegrityError, NotFoundError, TemporaryError, UsageError
from atdata_cli.shards.reader import Shard
from atdata_cli.stores.filesystem import FilesystemStore
from atdata_cli.stores.http import HTTPStore
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.local import LocalStore
from atdata_cli.stores.probe import failures, worst
from atdata_cli.stores.registry import StoreOptions
from atdata_cli.stores.resolve import ResolvedShard, Resolver, as_wds, compress
from tests.unit.test_http_store import Plain, Ranges, serve

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s/e+c" * 8}
SPECIAL = st.text(alphabet="{}\\,.:$0189a/-_ \né[]'\"", max_size=12)


def expanded(patterns: list[str]) -> list[str]:
    return list(itertools.chain.from_iterable(map(braceexpand, patterns)))


# -- braces


def test_runs_become_patterns():
    def numbered(*numbers: int) -> list[str]:
        return [f"s3://b/p/shard-{number:06d}.tar" for number in numbers]

    assert compress(numbered(*range(10))) == ["s3://b/p/shard-{000000..000009}.tar"]
    assert compress(numbered(0, 1, 2, 4, 5, 9)) == [
        "s3://b/p/shard-{000000..000002}.tar",
        "s3://b/p/shard-{000004..000005}.tar",
        "s3://b/p/shard-000009.tar",
    ]
    assert compress(["8", "9", "10", "11"]) == ["{8..11}"]
    assert compress(["0", "1"]) == ["{0..1}"]
    assert compress(["08", "09", "10"]) == ["{08..10}"]
    assert compress(["098", "099", "100"]) == ["{098..100}"]
    assert compress(["0999", "1000"]) == ["{0999..1000}"]
    assert compress(["099", "100", "999", "1000"]) == ["{099..100}", "{999..1000}"]
    assert compress(["9", "09"]) == ["9", "09"]
    assert compress(["a1b1", "a2b2"]) == ["a1b1", "a2b2"]
    assert compress(["a1b1", "a1b2", "a2b2"]) == ["a1b{1..2}", "a2b2"]
    assert compress(["x", "x"]) == ["x", "x"]
    assert compress(["a{1}", "a{2}", r"a\3"]) == [r"a\{{1..2}\}", r"a\\3"]
    assert compress([]) == []


@given(st.lists(SPECIAL, max_size=12))
@example(["099", *(str(number) for number in range(100, 1002))])
def test_any_list_comes_back_from_its_patterns(urls):
    assert expanded(compress(urls)) == urls


@given(
    before=SPECIAL,
    after=SPECIAL,
    runs=st.lists(st.tuples(st.integers(0, 1200), st.integers(1, 30), st.integers(0, 5)), max_size=5),
)
def test_runs_of_any_width_come_back(before, after, runs):
    urls = [
        f"{before}x{number:0{width}d}x{after}"
        for first, length, width in runs
        for number in range(first, first + length)
    ]
    patterns = compress(urls)
    assert expanded(patterns) == urls
    # A run breaks where the width of a padded number grows, at most: at 10, 100 and 1000.
    assert len(patterns) <= 4 * len(runs)


# -- one string for WebDataset and for atdata


def test_the_string_of_ordinary_urls_is_plain():
    assert as_wds(["s3://b/p/shard-000000.tar"]) == "s3://b/p/shard-000000.tar"
    assert as_wds(["a,b c.tar"]) == "a,b c.tar"
    assert as_wds(["https://h/a.tar?x=1&y=2", "b.tar"]) == "{https://h/a.tar?x=1&y=2,b.tar}"


@given(st.lists(SPECIAL.map(lambda text: text + "x.tar"), min_size=1, max_size=6))
@example(["http://[::1]:8000/a.tar"])
@example(["${HOME}::x.tar", "a:::b.tar"])
@example(["1..3.tar"])
def test_both_readers_take_the_string_apart_to_the_same_urls(urls):
    text = as_wds(urls)
    assert expand_urls(text) == urls
    assert list(braceexpand(text)) == urls
    dataset = webdataset.WebDataset(text, shardshuffle=False)
    assert dataset.pipeline[0].urls == urls


# -- what each store gives


@pytest.mark.parametrize(
    ("typed", "opened"),
    [
        ("out/a.tar", "out/a.tar"),
        ("/x/a:b.tar", "/x/a:b.tar"),
        ("d/run:7.tar", "d/run:7.tar"),
        ("run:7.tar", "./run:7.tar"),
        ("a::b.tar", "./a::b.tar"),
        ("-x.tar", "./-x.tar"),
        ("-", "./-"),
        ("//host/a.tar", "/host/a.tar"),
        ("file:///x/a.tar", "/x/a.tar"),
        ("./run:7.tar", "./run:7.tar"),
    ],
)
def test_paths_are_as_typed_unless_webdataset_would_misread_them(typed, opened):
    assert LocalStore().read_url(typed) == opened
    assert urllib.parse.urlparse(opened).scheme == ""


def test_http_urls_are_as_they_are_but_for_what_curl_takes_for_a_pattern():
    store = HTTPStore("https://h/x")
    assert store.read_url("https://h/x/a.tar?sig=a%2Fb&t=1") == "https://h/x/a.tar?sig=a%2Fb&t=1"
    assert store.read_url("https://u:p@h:1/x/{a},b[1] é.tar?q={z}#f") == (
        "https://u:p@h:1/x/%7Ba%7D,b%5B1%5D%20%C3%A9.tar?q=%7Bz%7D#f"
    )
    assert store.read_url("http://[::1]:8000/a.tar") == "http://[::1]:8000/a.tar"
    assert store.read_url("http://h?x=[1]") == "http://h?x=%5B1%5D"


def test_other_file_systems_say_why_webdataset_cannot_open_them():
    import fsspec

    memory = FilesystemStore(fsspec.filesystem("memory"), protocol="memory")
    with pytest.raises(UsageError, match="WebDataset cannot open 'memory:' URLs"):
        memory.read_url("memory://a.tar")
    for protocol in ("hf", "sftp"):
        store = FilesystemStore(fsspec.filesystem("memory"), protocol=protocol)
        assert store.read_url(f"{protocol}://h/a.tar") == f"{protocol}://h/a.tar"


# -- presigned URLs; signing needs no network


def parts(url: str) -> tuple[str, str, dict[str, str]]:
    split = urllib.parse.urlsplit(url)
    return split.netloc, split.path, dict(urllib.parse.parse_qsl(split.query))


def test_urls_are_signed_by_version_4_for_every_kind_of_endpoint(monkeypatch):
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    places = [
        ({"endpoint_url": "http://127.0.0.1:9000"}, "127.0.0.1:9000", "/bucket/k.tar", "us-east-1"),
        ({"endpoint_url": "https://minio.example.org"}, "minio.example.org", "/bucket/k.tar", "us-east-1"),
        (
            {"endpoint_url": "http://s3.example.org:1", "options": {"addressing": "virtual"}},
            "bucket.s3.example.org:1",
            "/k.tar",
            "us-east-1",
        ),
        ({"region": "us-east-1"}, "bucket.s3.amazonaws.com", "/k.tar", "us-east-1"),
        # Newer regions do not answer at the global endpoint, which is botocore's choice.
        ({"region": "eu-south-1"}, "bucket.s3.eu-south-1.amazonaws.com", "/k.tar", "eu-south-1"),
        (
            {"region": "eu-south-1", "options": {"addressing": "path"}},
            "s3.eu-south-1.amazonaws.com",
            "/bucket/k.tar",
            "eu-south-1",
        ),
    ]
    for arguments, host, path, region in places:
        url = S3DataStore(KEYS, bucket="bucket", **arguments).read_url("s3://bucket/k.tar")
        assert parts(url)[:2] == (host, path)
        query = parts(url)[2]
        assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
        assert query["X-Amz-Credential"].split("/")[0::2][:2] == ["AKIAEXAMPLE", region]
        assert query["X-Amz-Expires"] == "3600"
        assert query["X-Amz-SignedHeaders"] == "host"
        assert "Signature" not in query


def test_the_region_to_which_a_bucket_redirects_is_signed_for():
    store = S3DataStore(KEYS, bucket="bucket", region="us-east-1")
    # What botocore does for a bucket once a request to it was answered by a redirect.
    store.fs.s3.meta.events.register(
        "before-endpoint-resolution.s3", lambda builtins, **_: builtins.update({"AWS::Region": "eu-west-1"})
    )
    host, _, query = parts(store.read_url("s3://bucket/k"))
    assert host == "bucket.s3.eu-west-1.amazonaws.com"
    assert "/eu-west-1/s3/" in query["X-Amz-Credential"]


def test_keys_are_percent_encoded_so_that_no_reader_takes_them_for_a_pattern():
    url = S3DataStore(KEYS, bucket="bucket").read_url("s3://bucket/a b/{0..9},[x]::?#é.tar")
    assert not set(url) & set("{}[],#\\ ")
    assert "::" not in url
    assert as_wds([url]) == url
    assert parts(url)[1] == "/" + urllib.parse.quote("a b/{0..9},[x]::?#é.tar")


def test_requester_pays_is_in_the_query_for_readers_send_no_headers():
    query = parts(S3DataStore(KEYS, bucket="bucket", options={"requester_pays": True}).read_url("s3://bucket/k"))[2]
    assert query["x-amz-request-payer"] == "requester"
    assert query["X-Amz-SignedHeaders"] == "host"


def test_stores_of_one_account_share_a_connection(monkeypatch):
    first, second = S3DataStore(KEYS, bucket="one"), S3DataStore(KEYS, bucket="two")
    assert first.fs is second.fs
    assert pickle.loads(pickle.dumps(first)).fs is first.fs
    assert S3DataStore(KEYS, bucket="one", region="eu-west-1").fs is not first.fs
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    assert S3DataStore(KEYS, bucket="one").fs is not first.fs


def resolved(urls: list[str], options: StoreOptions | None = None, **arguments) -> tuple[list[ResolvedShard], Resolver]:
    resolver = Resolver(StoreFiles(options), **arguments)
    return resolver.resolve([Shard(url, None) for url in urls]), resolver


def test_urls_end_when_asked_or_with_the_credentials(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    before = datetime.now(UTC) - timedelta(seconds=1)
    (one,), resolver = resolved(["s3://bucket/k"], expires=7200)
    assert before + timedelta(hours=2) <= one.end <= datetime.now(UTC) + timedelta(hours=2)
    assert "X-Amz-Expires=7200" in one.url
    assert resolver.warnings == []

    monkeypatch.setenv("AWS_SESSION_TOKEN", "to/ken==")
    (one,), resolver = resolved(["s3://bucket/k"])
    assert parts(one.url)[2]["X-Amz-Security-Token"] == "to/ken=="
    assert one.end is None
    assert "temporary" in resolver.warnings[0]

    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", end.isoformat())
    (one,), resolver = resolved(["s3://bucket/k"], expires=12 * 3600)
    assert one.end == end
    assert f"{end:%Y-%m-%d %H:%M:%S} UTC" in resolver.warnings[0]
    assert "ken" not in resolver.warnings[0]
    (one,), resolver = resolved(["s3://bucket/k"], expires=3600)
    assert one.end < end
    assert resolver.warnings == []

    (one,), resolver = resolved(["s3://bucket/k"], StoreOptions(anonymous=True))
    assert (one.end, urllib.parse.urlsplit(one.url).query, resolver.warnings) == (None, "", [])

    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", (end - timedelta(days=1)).isoformat())
    with pytest.raises(AuthError, match="expired"):
        resolved(["s3://bucket/k"])


def test_the_order_is_kept_across_stores(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    found, _ = resolved(["s3://b/1", "x/2.tar", "s3://c/3", "s3://b/4", "https://h/5.tar", "y/6.tar"])
    assert [one.url.partition("?")[0].rstrip("r").rstrip(".ta")[-1] for one in found] == list("123456")


# -- opening each


def tar_bytes() -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            info = tarfile.TarInfo("a.txt")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        return file.getvalue()


def check(shards: list[ResolvedShard]):
    return failures(shards, StoreFiles())


def test_tars_open_compressed_or_not_and_nothing_else_does(tmp_path):
    contents = {
        "a.tar": tar_bytes(),
        "b.tar.gz": gzip.compress(tar_bytes()),
        "c.tar.bz2": bz2.compress(tar_bytes()),
        "d.tar.xz": lzma.compress(tar_bytes()),
        "empty.tar": bytes(10240),
        "text.tar": b"hello\n" * 100,
        "nothing.tar": b"",
        "cut.tar.gz": gzip.compress(tar_bytes())[:30],
        "page.tar.gz": gzip.compress(b"<html>" * 200),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    shards = [ResolvedShard(Shard(name, None), str(tmp_path / name)) for name in [*contents, "missing.tar"]]
    errors = check(shards)
    assert [error.url for error in errors] == [
        "text.tar",
        "nothing.tar",
        "cut.tar.gz",
        "page.tar.gz",
        "missing.tar",
    ]
    assert [type(error) for error in errors] == [IntegrityError] * 4 + [NotFoundError]
    assert worst(errors) is errors[0]
    assert worst(errors[4:]) is errors[4]


def test_answers_of_web_servers_are_told_apart(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(tar_bytes())
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(serving(Plain))
        ranges = stack.enter_context(serving(Ranges))
        urls = {
            f"{plain}/a.tar": None,
            f"{plain}/a.tar?X-Amz-Signature=secret": None,
            plain.replace("//", "//user:pass@") + "/a.tar": None,
            f"{plain}/b.tar": NotFoundError,
            f"{ranges}/status/403": AuthError,
            f"{ranges}/status/503": TemporaryError,
            f"{ranges}/short.tar": IntegrityError,
            f"{ranges}/x.tar": IntegrityError,
            "http://127.0.0.1:9/x.tar": TemporaryError,
        }
        for url, kind in urls.items():
            errors = check([ResolvedShard(Shard("s3://b/k", None), url)])
            assert [type(error) for error in errors] == ([kind] if kind else []), url
            assert all(error.url == "s3://b/k" for error in errors)
    assert worst([TemporaryError(""), AuthError("")]).exit_code == 4
    assert worst([TemporaryError(""), TemporaryError("")]).exit_code == 5


@contextlib.contextmanager
def serving(handler):
    server, root = serve(handler)
    try:
        yield root
    finally:
        server.shutdown()
        server.server_close()
