"""The S3 store against a real server."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atdata_cli.errors import (
    AtdataError,
    AuthError,
    IntegrityError,
    NotFoundError,
    TemporaryError,
    UsageError,
)
from atdata_cli.shards.protocols import ShardSink
from atdata_cli.stores.s3 import S3DataStore
from atdata_cli.stores.s3_upload import MAX_PARTS, PART_SIZE, PARTS_HELD, part_size
from atdata_cli.stores.testing import StoreContract, WriteShardsContract, pattern
from tests.servers.proxy import Exchange, Faults, faulty
from tests.servers.seaweed import S3Server

MIB = 1 << 20
SMALL_PARTS = {"part_size": "5M"}


def make_store(server: S3Server, bucket: str, **arguments: Any) -> S3DataStore:
    return S3DataStore({**server.credentials, **arguments.pop("changed", {})}, bucket=bucket, **arguments)


def write_and_commit(sink: ShardSink, chunks: list[bytes]) -> None:
    for chunk in chunks:
        sink.write(chunk)
    sink.commit()


def unfinished(store: S3DataStore) -> list[str]:
    answer = store.fs.call_s3("list_multipart_uploads", Bucket=store.bucket)
    return [row["Key"] for row in answer.get("Uploads", [])]


@pytest.fixture
def store(s3_server: S3Server, s3_bucket: str) -> S3DataStore:
    return make_store(s3_server, s3_bucket)


class TestS3Store(StoreContract):
    large = 42 * MIB + 13

    @pytest.fixture
    def store(self, s3_server: S3Server, s3_bucket: str) -> S3DataStore:
        return make_store(s3_server, s3_bucket)

    def leftovers(self, store: S3DataStore) -> list[str]:
        return unfinished(store)


class TestSink:
    @pytest.mark.parametrize("size", [PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE])
    def test_sizes_around_a_part(self, s3_server: S3Server, s3_bucket: str, size: int) -> None:
        faults = Faults()
        data = pattern(size)
        with faulty(s3_server.endpoint, faults) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint)
            sink = store.create("a.bin")
            sink.write(data)
            sink.commit()
            assert store.read("a.bin") == data
        puts = [one for one in faults.seen if one.method == "PUT"]
        sizes = [min(PART_SIZE, size - at) for at in range(0, size, PART_SIZE)]
        assert sorted(len(one.body) for one in puts) == sorted(sizes)
        assert all("x-amz-checksum-crc32" in {name.lower() for name in one.headers} for one in puts)
        assert ("uploadId" in puts[0].path) == (size > PART_SIZE)

    def test_the_rest_is_read_in_large_blocks(self, s3_server: S3Server, s3_bucket: str) -> None:
        faults = Faults()
        data = pattern(9 * MIB + 5)
        with faulty(s3_server.endpoint, faults) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint)
            write_and_commit(store.create("a.bin"), [data])
            with store.open("a.bin") as file:
                assert file.read(10) + file.read() == data
                assert file.read() == b""
        assert len([one for one in faults.seen if one.method == "GET"]) <= 4

    def test_memory_is_bounded(self, store: S3DataStore) -> None:
        chunk = pattern(8 * MIB)
        sink = store.create("big.bin")
        for _ in range(25):
            sink.write(chunk)
        sink.commit()
        assert store._uploads.budget.peak <= PARTS_HELD * PART_SIZE
        assert len(store._uploads._buffers) <= PARTS_HELD + 1
        info = store.stat("big.bin")
        assert info is not None
        assert info.size == 200 * MIB

    def test_write_waits_for_a_server_that_does_not_read(self, tmp_path: Path) -> None:
        arrived = threading.Event()
        release = threading.Event()

        def refuse(exchange: Exchange) -> None:
            if exchange.method == "PUT":
                arrived.set()
                release.wait()
            exchange.status = 200
            exchange.answer = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"

        with faulty("http://127.0.0.1:1", Faults(request=refuse)) as endpoint:
            store = S3DataStore(
                {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
                bucket="bucket",
                endpoint_url=endpoint,
                options=SMALL_PARTS,
            )
            sink = store.create("a.bin")
            taken: list[int] = []

            def write() -> None:
                for _ in range(20):
                    sink.write(bytes(5 * MIB))
                    taken.append(1)

            writer = threading.Thread(target=write)
            writer.start()
            arrived.wait()
            writer.join(1)
            assert writer.is_alive()
            assert len(taken) <= PARTS_HELD + 1
            release.set()
            writer.join()

    def test_a_vanished_upload_fails_and_is_aborted(self, s3_server: S3Server, s3_bucket: str) -> None:
        store = make_store(s3_server, s3_bucket, options=SMALL_PARTS)
        sink = store.create("gone.bin")
        sink.write(pattern(11 * MIB))
        assert sink._upload_id is not None
        sink._upload_id.result()
        for row in store.fs.call_s3("list_multipart_uploads", Bucket=s3_bucket)["Uploads"]:
            store.fs.call_s3("abort_multipart_upload", Bucket=s3_bucket, Key=row["Key"], UploadId=row["UploadId"])
        with pytest.raises(AtdataError) as caught:
            sink.commit()
        sink.abort()
        assert caught.value.url == f"s3://{s3_bucket}/gone.bin"
        assert store.stat("gone.bin") is None
        assert unfinished(store) == []

    def test_a_failed_commit_leaves_nothing_after_abort(self, s3_server: S3Server, s3_bucket: str) -> None:
        def refuse(exchange: Exchange) -> None:
            if exchange.method == "POST" and "uploadId=" in exchange.path:
                exchange.status = 403
                exchange.answer = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"

        with faulty(s3_server.endpoint, Faults(request=refuse)) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint, options=SMALL_PARTS)
            sink = store.create("refused.bin")
            sink.write(pattern(11 * MIB))
            with pytest.raises(AuthError):
                sink.commit()
            assert unfinished(store) == ["refused.bin"]
            sink.abort()
            assert unfinished(store) == []
            assert list(store.list("")) == []

    def test_a_failed_part_is_told_by_write(self, s3_server: S3Server, s3_bucket: str) -> None:
        def refuse(exchange: Exchange) -> None:
            if "partNumber=2" in exchange.path:
                exchange.status = 403
                exchange.answer = b"<Error><Code>ExpiredToken</Code><Message>old</Message></Error>"

        with faulty(s3_server.endpoint, Faults(request=refuse)) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint, options=SMALL_PARTS)
            sink = store.create("expired.bin")
            with pytest.raises(AuthError, match="expired"):
                write_and_commit(sink, [pattern(5 * MIB)] * 20)
            sink.abort()
            assert unfinished(store) == []

    def test_nothing_is_written_after_the_end(self, store: S3DataStore) -> None:
        sink = store.create("done.bin")
        sink.commit()
        with pytest.raises(ValueError, match="already"):
            sink.write(b"x")
        with pytest.raises(ValueError, match="already"):
            sink.commit()
        sink.abort()
        assert store.read("done.bin") == b""

    def test_parts_grow_near_their_limit(self) -> None:
        sizes = [part_size(number, PART_SIZE) for number in range(1, MAX_PARTS + 1)]
        assert set(sizes[:5000]) == {PART_SIZE}
        assert sizes == sorted(sizes)
        assert max(sizes) <= 5 << 30
        assert sum(sizes) > 1 << 40


def damage(exchange: Exchange) -> None:
    if exchange.method == "PUT" and exchange.body:
        exchange.body = bytes([exchange.body[0] ^ 1]) + exchange.body[1:]


def hide_echo(exchange: Exchange) -> None:
    kept = {n: v for n, v in exchange.answer_headers.items() if not n.lower().startswith("x-amz-checksum")}
    exchange.answer_headers = kept


def refuse_checksum(exchange: Exchange) -> None:
    if any(name.lower().startswith("x-amz-checksum") for name in exchange.headers):
        exchange.status = 501
        exchange.answer = b"<Error><Code>NotImplemented</Code><Message>x-amz-checksum</Message></Error>"
    else:
        damage(exchange)


class TestIntegrity:
    """Bytes that change between us and the server's disk are noticed."""

    @pytest.mark.parametrize("size", [10, 11 * MIB])
    @pytest.mark.parametrize("request_fault", [damage, refuse_checksum])
    def test_damage_is_noticed(self, s3_server: S3Server, s3_bucket: str, size: int, request_fault: Any) -> None:
        with faulty(s3_server.endpoint, Faults(request=request_fault)) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint, options=SMALL_PARTS)
            sink = store.create("damaged.bin")
            with pytest.raises(IntegrityError):
                write_and_commit(sink, [pattern(size)])
            sink.abort()
            assert store.stat("damaged.bin") is None
            assert unfinished(store) == []

    @pytest.mark.parametrize("size", [10, 16 * MIB])
    def test_damage_once_is_mended(self, s3_server: S3Server, s3_bucket: str, size: int) -> None:
        damaged: list[int] = []

        def once(exchange: Exchange) -> None:
            if exchange.method == "PUT" and not damaged:
                damaged.append(1)
                damage(exchange)

        with faulty(s3_server.endpoint, Faults(request=once)) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint, options=SMALL_PARTS)
            sink = store.create("mended.bin")
            sink.write(pattern(size))
            sink.commit()
            assert store.read("mended.bin") == pattern(size)

    @pytest.mark.parametrize("size", [10, 16 * MIB])
    def test_a_server_without_echo_gets_md5(self, s3_server: S3Server, s3_bucket: str, size: int) -> None:
        faults = Faults(answer=hide_echo)
        with faulty(s3_server.endpoint, faults) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint, options=SMALL_PARTS)
            for _ in range(2):
                sink = store.create("quiet.bin")
                sink.write(pattern(size))
                sink.commit()
            assert store.read("quiet.bin") == pattern(size)
        last = [one for one in faults.seen if one.method == "PUT"][-1]
        assert "content-md5" in {name.lower() for name in last.headers}

    def test_without_echo_and_md5_etag_it_is_sent_again(self, s3_server: S3Server, s3_bucket: str) -> None:
        def encrypted(exchange: Exchange) -> None:
            hide_echo(exchange)
            if exchange.method == "PUT":
                exchange.answer_headers["ETag"] = '"0123"'

        faults = Faults(answer=encrypted)
        with faulty(s3_server.endpoint, faults) as endpoint:
            store = make_store(s3_server, s3_bucket, endpoint_url=endpoint)
            sink = store.create("encrypted.bin")
            sink.write(b"data")
            sink.commit()
            assert store.read("encrypted.bin") == b"data"
            assert len([one for one in faults.seen if one.method == "PUT"]) == 2
            again = make_store(s3_server, s3_bucket, endpoint_url=endpoint)
            assert again.put_if_absent("job.json", b"{}")
        assert len([one for one in faults.seen if one.method == "PUT"]) == 3


class TestLostAnswers:
    """The server has done it, but the answer is lost and the request is repeated."""

    @pytest.fixture
    def lossy(self, s3_server: S3Server, s3_bucket: str) -> Iterator[S3DataStore]:
        lost: list[str] = []

        def lose(exchange: Exchange) -> None:
            completes = exchange.method == "POST" and "uploadId=" in exchange.path
            conditional = {"if-none-match", "if-match"} & {name.lower() for name in exchange.headers}
            if (completes or conditional) and exchange.path not in lost:
                lost.append(exchange.path)
                exchange.lost = True

        with faulty(s3_server.endpoint, Faults(answer=lose)) as endpoint:
            yield make_store(s3_server, s3_bucket, endpoint_url=endpoint, options=SMALL_PARTS)

    def test_complete(self, lossy: S3DataStore) -> None:
        sink = lossy.create("whole.bin")
        sink.write(pattern(11 * MIB))
        sink.commit()
        assert lossy.read("whole.bin") == pattern(11 * MIB)
        assert unfinished(lossy) == []

    def test_put_if_absent(self, lossy: S3DataStore) -> None:
        assert lossy.put_if_absent("job.json", b"mine")
        assert not lossy.put_if_absent("job.json", b"mine")

    def test_replace_if_unchanged(self, lossy: S3DataStore, store: S3DataStore) -> None:
        store.put_if_absent("manifest.json", b"old")
        info = store.stat("manifest.json")
        assert info is not None
        assert info.version is not None
        assert lossy.replace_if_unchanged("manifest.json", b"new", info.version)
        assert store.read("manifest.json") == b"new"


def use(store: S3DataStore) -> list[Any]:
    """Everything that asks the server, to be called one by one."""

    def write(size: int) -> None:
        sink = store.create("a.bin")
        try:
            sink.write(bytes(size))
            sink.commit()
        finally:
            sink.abort()

    return [
        lambda: store.stat("a.bin"),
        lambda: store.read("a.bin"),
        lambda: store.open("a.bin"),
        lambda: list(store.list("a")),
        lambda: write(10),
        lambda: write(11 * MIB),
        lambda: store.put_if_absent("a.bin", b"x"),
    ]


class TestErrors:
    def assert_all(self, store: S3DataStore, kind: type[AtdataError], text: str) -> None:
        for action in use(store):
            with pytest.raises(kind) as caught:
                action()
            error = caught.value
            assert text in error.message
            assert error.hint
            assert error.url is not None
            assert error.url.startswith(f"s3://{store.bucket}")
            assert "\n" not in error.message

    def test_no_such_bucket(self, s3_server: S3Server) -> None:
        store = make_store(s3_server, "no-such-bucket", options=SMALL_PARTS)
        self.assert_all(store, NotFoundError, "no such bucket")

    def test_wrong_key(self, s3_server: S3Server, s3_bucket: str) -> None:
        store = make_store(s3_server, s3_bucket, changed={"AWS_ACCESS_KEY_ID": "unknown"}, options=SMALL_PARTS)
        self.assert_all(store, AuthError, "does not know this access key")

    def test_wrong_secret(self, s3_server: S3Server, s3_bucket: str) -> None:
        secret = "wrong-secret-0123456789"
        store = make_store(s3_server, s3_bucket, changed={"AWS_SECRET_ACCESS_KEY": secret}, options=SMALL_PARTS)
        self.assert_all(store, AuthError, "secret key is wrong")
        with pytest.raises(AuthError) as caught:
            store.stat("a.bin")
        assert secret not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.hint} {store!r}"

    def test_anonymous(self, s3_server: S3Server, s3_bucket: str) -> None:
        store = S3DataStore(bucket=s3_bucket, endpoint_url=s3_server.endpoint, anonymous=True, options=SMALL_PARTS)
        self.assert_all(store, AuthError, "access denied")

    def test_no_credentials(
        self, s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        isolate(monkeypatch, tmp_path)
        store = S3DataStore(bucket=s3_bucket, endpoint_url=s3_server.endpoint, options=SMALL_PARTS)
        self.assert_all(store, AuthError, "there are no credentials")
        with pytest.raises(AuthError):
            store.read_url(store.url("a.bin"))

    def test_no_such_profile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        isolate(monkeypatch, tmp_path)
        store = S3DataStore(bucket="bucket", profile="nobody")
        with pytest.raises(AuthError, match="no such profile"):
            store.stat("a.bin")

    def test_refused_connection(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            store = make_store(
                S3Server(f"http://127.0.0.1:{closed.getsockname()[1]}", "key", "secret"),
                "bucket",
                options={**SMALL_PARTS, "retries": "0"},
            )
            self.assert_all(store, TemporaryError, "cannot be reached")

    def test_overloaded_server(self) -> None:
        def overloaded(exchange: Exchange) -> None:
            exchange.status = 503
            exchange.answer = b"<Error><Code>SlowDown</Code><Message>slow</Message></Error>"

        with faulty("http://127.0.0.1:1", Faults(request=overloaded)) as endpoint:
            store = make_store(S3Server(endpoint, "key", "secret"), "bucket", options={"retries": "0"})
            with pytest.raises(TemporaryError):
                store.read("a.bin")

    def test_what_a_server_says_is_one_short_line(self) -> None:
        def talkative(exchange: Exchange) -> None:
            exchange.status = 418
            exchange.answer = (
                b"<Error><Code>Teapot</Code><Message>red\x1b[31m\nline" + b"x" * 5000 + b"</Message></Error>"
            ).replace(b"\x1b", b"&#x9b;")

        with faulty("http://127.0.0.1:1", Faults(request=talkative)) as endpoint:
            store = make_store(S3Server(endpoint, "key", "secret"), "bucket", options={"retries": "0"})
            with pytest.raises(AtdataError, match="Teapot") as caught:
                store.read("a.bin")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 300

    def test_an_object_replaced_while_it_is_read(self, store: S3DataStore) -> None:
        assert store.put_if_absent("a.bin", pattern(10 * MIB))
        with store.open("a.bin") as file:
            file.read(10)
            store.delete("a.bin")
            assert store.put_if_absent("a.bin", bytes(10 * MIB))
            with pytest.raises(TemporaryError, match="changed"):
                file.read()

    @pytest.mark.parametrize("name", ["", "a/../b", "./a", "nul\0", "x" * 1025, "lone \ud800"])
    def test_impossible_names(self, store: S3DataStore, name: str) -> None:
        with pytest.raises(UsageError):
            store.stat(name)


def isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No credentials anywhere."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class TestReadUrl:
    @pytest.mark.parametrize("name", ["a/b.tar", "odd name+%20#?.tar", "grüße/🦜.tar"])
    def test_opens_without_credentials(self, store: S3DataStore, name: str) -> None:
        assert store.put_if_absent(name, b"content")
        url = store.read_url(store.url(name))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url) as answer:
            assert answer.read() == b"content"
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
        assert "X-Amz-Expires=3600" in url
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(url.partition("?")[0])
        caught.value.close()
        assert caught.value.code == 403

    def test_expires(self, store: S3DataStore) -> None:
        store.expires = 60
        assert "X-Amz-Expires=60" in store.read_url(store.url("a"))
        store.expires = 8 * 24 * 3600
        with pytest.raises(UsageError):
            store.read_url(store.url("a"))

    def test_without_signature(self) -> None:
        store = S3DataStore(bucket="public", anonymous=True, endpoint_url="https://s3.example.org")
        assert store.read_url("s3://public/a/b.tar") == "https://s3.example.org/public/a/b.tar"

    @pytest.mark.parametrize("url", ["s3://other/a", "/a", "https://x/a", "s3://bucket", "s3://bucket-2/a"])
    def test_only_of_this_bucket(self, url: str) -> None:
        with pytest.raises(UsageError):
            S3DataStore(bucket="bucket", anonymous=True).read_url(url)


class TestConstruction:
    def test_env_file(self, s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
        file = tmp_path / "s3.env"
        file.write_text("# mine\n" + "".join(f"{n}='{v}'\n" for n, v in s3_server.credentials.items()))
        for path in (file, str(file)):
            store = S3DataStore(path, bucket=s3_bucket)
            assert store.stat("a") is None

    def test_environment(
        self, s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        isolate(monkeypatch, tmp_path)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
        assert S3DataStore(bucket=s3_bucket).stat("a") is None

    def test_profile(
        self, s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        isolate(monkeypatch, tmp_path)
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "config").write_text(
            f"[profile lab]\naws_access_key_id={s3_server.key}\naws_secret_access_key={s3_server.secret}\n"
            f"endpoint_url={s3_server.endpoint}\nregion=us-east-1\n"
        )
        assert S3DataStore(bucket=s3_bucket, profile="lab").stat("a") is None

    @pytest.mark.parametrize("given", [{}, {"AWS_ACCESS_KEY_ID": "k"}, {"AWS_SECRET_ACCESS_KEY": ""}])
    def test_incomplete_credentials(self, given: dict[str, str]) -> None:
        with pytest.raises(AuthError, match="AWS_SECRET_ACCESS_KEY"):
            S3DataStore(given, bucket="bucket")

    def test_missing_env_file(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            S3DataStore(tmp_path / "absent.env", bucket="bucket")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"bucket": ""},
            {"bucket": "a/b"},
            {"bucket": "b", "endpoint_url": "localhost:9000"},
            {"bucket": "b", "endpoint_url": "https://user:word@host"},
            {"bucket": "b", "options": {"part_sise": "5M"}},
            {"bucket": "b", "options": {"part_size": "1M"}},
            {"bucket": "b", "options": {"part_size": "much"}},
            {"bucket": "b", "options": {"requester_pays": "perhaps"}},
            {"bucket": "b", "options": {"addressing": "sideways"}},
            {"bucket": "b", "profile": "p", "credentials": {}},
        ],
    )
    def test_arguments_that_do_not_fit(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(UsageError) as caught:
            S3DataStore(**arguments)
        assert "word" not in str(caught.value)

    def test_options(self) -> None:
        store = S3DataStore(bucket="b", options={"part_size": "64MiB", "read_timeout": "2.5", "requester_pays": "yes"})
        options = store._options
        assert (options.part_size, options.read_timeout, options.requester_pays) == (64 * MIB, 2.5, True)

    def test_secrets_are_not_shown_but_pickled(self, s3_server: S3Server, s3_bucket: str) -> None:
        store = make_store(s3_server, s3_bucket)
        assert s3_server.secret not in f"{store!r} {store._account!r}"
        assert store.put_if_absent("a", b"x")
        assert pickle.loads(pickle.dumps(store)).read("a") == b"x"


class TestS3WriteShards(WriteShardsContract):
    @pytest.fixture
    def store(self, s3_server: S3Server, s3_bucket: str) -> S3DataStore:
        return make_store(s3_server, s3_bucket)
