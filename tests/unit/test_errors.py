"""What errors say of themselves, and of those of others."""

import pickle

import pytest

from atdata_cli.errors import AtdataError, MissingExtraError, TemporaryError, from_os_error, reason_of
from atdata_cli.stores.local import LocalStore


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AtdataError("it fails"), "it fails"),
        (AtdataError("it fails", url="s3://b/x", hint="mend it"), "s3://b/x: it fails (mend it)"),
        (AtdataError("no", url="https://me:word@h/x?sig=abc"), "https://***@h/x?sig=***: no"),
        (
            MissingExtraError("this", extra="x"),
            "this needs the optional 'x' dependencies (pip install 'atdata-cli[x]')",
        ),
    ],
)
def test_the_text_of_an_error_is_all_that_it_says(error, text):
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError(-2, "Name or service not known"), "Name or service not known"),
        (RuntimeError("[Errno 111] Connection refused"), "Connection refused"),
        (OSError("Unable to load libjvm\ndlopen: no such file"), "Unable to load libjvm"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_the_reason_of_others_is_one_line_of_words(error, text):
    assert reason_of(error) == text
    if isinstance(error, OSError):
        assert from_os_error(error, "x", doing="read").message == f"cannot read it: {text}"


def test_a_later_change_is_told():
    error = TemporaryError("busy")
    error.url = "x"
    assert str(error) == "x: busy (try again later)"


def test_an_unknown_option_of_write_shards_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"write_shards\(\) has no option 'foo'"):
        LocalStore(tmp_path).write_shards([{"__key__": "a", "txt": b"1"}], prefix="x", foo=1)
