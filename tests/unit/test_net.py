"""Which servers may be asked, by which way, and how what fails is repeated."""

from __future__ import annotations

import logging
import threading

import pytest

from atdata_cli import net
from atdata_cli.errors import AtdataError, RateLimitedError, TemporaryError, UsageError
from atdata_cli.net import is_loopback, is_secure, proxy_for, server_root
from atdata_cli.retry import Retry, seconds_to_wait

NO_PAUSE = Retry(retries=3, first=0.0, patience=0.05)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://Example.com/", "https://example.com"),
        ("https://example.com:8443/x?y#z", "https://example.com:8443"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("https://user:pass@example.com", None),
        ("https://localhost@example.com", None),
        ("ftp://example.com", None),
        ("https://", None),
        ("https://ex ample.com", None),
        ("https://example.com\\@evil", None),
    ],
)
def test_server_root(url: str, root: str | None) -> None:
    assert server_root(url) == root


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1:99", "[::1]:2583", "pds.localhost"])
def test_this_machine(host: str) -> None:
    assert is_loopback(f"http://{host}/x")
    assert is_secure(f"http://{host}")


@pytest.mark.parametrize("host", ["localhost.example.com", "10.0.0.1", "127.0.0.1.nip.io", "example.com", "0x7f.1"])
def test_other_machines(host: str) -> None:
    assert not is_loopback(f"http://{host}")
    assert not is_secure(f"http://{host}")
    assert is_secure(f"https://{host}")


class Attempts:
    def __init__(self, *errors: AtdataError) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_what_is_temporary_is_repeated() -> None:
    attempts = Attempts(*[TemporaryError("no")] * 3)
    assert NO_PAUSE.run(attempts) == "done"
    assert attempts.count == 4


def test_repeating_has_an_end() -> None:
    attempts = Attempts(*[TemporaryError("no")] * 9)
    with pytest.raises(TemporaryError):
        NO_PAUSE.run(attempts)
    assert attempts.count == 4


def test_nothing_else_is_repeated() -> None:
    attempts = Attempts(AtdataError("broken"))
    with pytest.raises(AtdataError, match="broken"):
        NO_PAUSE.run(attempts)
    assert attempts.count == 1


def test_a_server_that_says_when_is_waited_for_within_reason() -> None:
    attempts = Attempts(*[RateLimitedError("later", wait=0.001)] * 6)
    assert NO_PAUSE.run(attempts) == "done"
    attempts = Attempts(RateLimitedError("much later", wait=60))
    with pytest.raises(RateLimitedError):
        NO_PAUSE.run(attempts)
    assert attempts.count == 1


def test_what_keeps_failing_is_told_to_everybody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A break that passes is a detail; a server that is silent, time after time, is not, however short the pauses."""
    now = 0.0

    def silence() -> None:
        nonlocal now
        now += 60
        raise TemporaryError("the server stopped answering")

    monkeypatch.setattr("atdata_cli.retry.time.monotonic", lambda: now)
    monkeypatch.setattr(logging.getLogger("atdata_cli"), "propagate", True)
    with caplog.at_level(logging.INFO, "atdata_cli"), pytest.raises(TemporaryError):
        NO_PAUSE.run(silence)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]


def test_a_pause_can_be_ended() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(TemporaryError):
        Retry(first=600, longest=600).run(Attempts(TemporaryError("no")), stop=stop)


def test_pauses_grow_and_differ() -> None:
    retry = Retry(first=1, longest=8)
    for failures, longest in ((1, 1), (2, 2), (4, 8), (50, 8)):
        pauses = {retry.pause(failures) for _ in range(50)}
        assert longest / 2 <= min(pauses) <= max(pauses) <= longest
        assert len(pauses) > 10


def test_one_who_says_at_once_is_not_believed_for_ever() -> None:
    attempts = Attempts(*[RateLimitedError("at once", wait=0)] * 50)
    with pytest.raises(RateLimitedError) as caught:
        Retry(retries=3, first=0.001).run(attempts)
    assert attempts.count == 4
    assert caught.value.repeated


def test_no_retries_means_no_waiting_either() -> None:
    attempts = Attempts(RateLimitedError("soon", wait=0.001))
    with pytest.raises(RateLimitedError):
        Retry(retries=0).run(attempts)
    assert attempts.count == 1


def test_what_was_repeated_is_not_repeated_further_up() -> None:
    attempts = Attempts(*[TemporaryError("no")] * 9)
    with pytest.raises(TemporaryError):
        NO_PAUSE.run(lambda: NO_PAUSE.run(attempts))
    assert attempts.count == 4


def test_errors_of_others_need_a_meaning() -> None:
    errors: list[Exception] = [ConnectionError("theirs"), OSError("theirs, and the end")]

    def attempt() -> None:
        raise errors.pop(0)

    def meaning(error: Exception) -> AtdataError:
        return (TemporaryError if isinstance(error, ConnectionError) else AtdataError)(str(error))

    with pytest.raises(OSError, match="the end"):
        NO_PAUSE.run(attempt, meaning=meaning)
    errors = [ConnectionError("theirs")]
    with pytest.raises(ConnectionError):
        NO_PAUSE.run(attempt)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 120 "}, 120),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 01 Jan 2100 00:01:00 GMT", "date": "Fri, 01 Jan 2100 00:00:30 GMT"}, 30),
        ({"retry-after": "Fri, 01 Jan 2010 00:01:00 GMT"}, 0),
        ({"retry-after": "Fri, 01 Jan 99999 00:01:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers) == seconds


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
class TestProxies:
    def test_by_scheme(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert proxy_for("https://a.example") is None
        monkeypatch.setenv("HTTPS_PROXY", "http://one:1")
        assert proxy_for("https://a.example/x?y") == "http://one:1"
        assert proxy_for("http://a.example") is None
        monkeypatch.setenv("https_proxy", "two:2")
        assert proxy_for("HTTPS://a.example") == "http://two:2"
        monkeypatch.setenv("ALL_PROXY", "https://three")
        assert proxy_for("http://a.example") == "https://three"

    def test_strangers_who_call_a_cgi_script_choose_no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://evil:1")
        monkeypatch.setenv("REQUEST_METHOD", "GET")
        assert proxy_for("http://a.example") is None

    @pytest.mark.parametrize("proxy", ["socks5://one:1", "ftp://one", "http://"])
    def test_no_http_proxy(self, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(UsageError, match="only HTTP proxies"):
            proxy_for("https://a.example")

    @pytest.mark.parametrize(
        ("rules", "direct", "through"),
        [
            ("*", ["a", "10.0.0.1"], []),
            ("a.example", ["a.example", "A.Example", "b.a.example"], ["xa.example", "example", "a.example.com"]),
            (".a.example, *.b.example", ["a.example", "x.a.example", "x.b.example"], ["c.example"]),
            ("a.example:8443", ["a.example:8443"], ["a.example", "a.example:443"]),
            ("10.0.0.0/8 fd00::/8", ["10.200.3.4", "[fd00::1]:9000"], ["11.0.0.1", "[fe80::1]", "10.example"]),
            ("127.0.0.1,localhost,::1", ["127.0.0.1:9", "localhost", "[::1]"], ["127.0.0.2", "[::2]"]),
            ("[::1]:80", ["[::1]:80"], ["[::1]:81"]),
            (",, ,/8,:80,[", [], ["a", "10.0.0.1"]),
        ],
    )
    def test_no_proxy(self, monkeypatch: pytest.MonkeyPatch, rules: str, direct: list[str], through: list[str]) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://one:1")
        monkeypatch.setenv("NO_PROXY", rules)
        assert [host for host in direct if proxy_for(f"https://{host}/x")] == []
        assert [host for host in through if not proxy_for(f"https://{host}/x")] == []


class TestSettings:
    def test_the_command_line_is_for_the_processes_that_it_starts_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("ATDATA_RETRIES", "ATDATA_TIMEOUT", "ATDATA_CA_BUNDLE"):
            monkeypatch.setenv(name, "")
        before = net.settings()
        assert net.retry() == Retry()
        assert net.timeouts(1, 2) == (1, 2)
        net.configure(retries=0, timeout=1.5)
        assert net.retry().retries == 0
        assert net.timeouts(10, 60) == (1.5, 1.5)
        assert net.timeouts(1, 60) == (1, 1.5)
        assert net.settings() != before

    @pytest.mark.parametrize("text", ["-1", "many", "1.5", "9" * 9])
    def test_no_number(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("ATDATA_RETRIES", text)
        with pytest.raises(UsageError, match="ATDATA_RETRIES"):
            net.retry()

    @pytest.mark.parametrize("text", ["0", "-1", "soon", "1s", "0.0"])
    def test_no_time(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("ATDATA_TIMEOUT", text)
        with pytest.raises(UsageError, match="ATDATA_TIMEOUT"):
            net.timeouts()
