"""Which servers may be asked, and how what fails is repeated."""

from __future__ import annotations

import threading

import pytest

from atdata_cli.errors import AtdataError, RateLimitedError, TemporaryError
from atdata_cli.net import is_loopback, is_secure, server_root
from atdata_cli.retry import Retry

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
