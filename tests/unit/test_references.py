"""What each text names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.errors import UsageError
from atdata_cli.refs import Reference, parse

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
CID = "bafkreiaj4dviwkeqe7zfyx7z2gqp5txh5ocuxv6nf7jtikl2cdjplpv4b4"


@pytest.mark.parametrize(
    "text",
    ["out", "out/", "./@x", "s3://b/p/", "s3://b/p/shard-{000000..000009}.tar", "*.tar", "a/manifest.json",
     "https://h/x.tar", "memory://x/y", "{a.tar,s3://b/c.tar}", "C:\\x", "with space"],
)  # fmt: skip
def test_places(text):
    assert parse(text) == Reference("place", text)


@pytest.mark.parametrize(
    ("text", "kind", "authority", "name", "version", "key"),
    [
        ("@local", "index", "local", "", None, ""),
        ("@alice.test", "index", "alice.test", "", None, ""),
        ("@local/mnist", "dataset", "local", "mnist", None, ""),
        ("@local/mnist@1.0.0", "dataset", "local", "mnist", "1.0.0", ""),
        ("@alice.bsky.social/my-data_2@2.0.0-rc.1", "dataset", "alice.bsky.social", "my-data_2", "2.0.0-rc.1", ""),
        ("at://alice.test/mnist", "dataset", "alice.test", "mnist", None, ""),
        (f"at://{DID}/mnist@1", "dataset", DID, "mnist", "1", ""),
        (f"at://{DID}/science.alt.dataset.entry/3n2vib7i4gc2u", "entry", DID, "", None, "3n2vib7i4gc2u"),
        ("at://alice.test/science.alt.dataset.entry/3n2vib7i4gc2u", "entry", "alice.test", "", None, "3n2vib7i4gc2u"),
        (f"at://{DID}/blob/{CID}", "blob", DID, "", None, CID),
        ("atdata://local/dataset/mnist", "dataset", "local", "mnist", None, ""),
        ("atdata://alice.test/dataset/mnist@1.0.0", "dataset", "alice.test", "mnist", "1.0.0", ""),
        ("at://did:web:example.com/mnist", "dataset", "did:web:example.com", "mnist", None, ""),
    ],
)  # fmt: skip
def test_names_in_indexes(text, kind, authority, name, version, key):
    assert parse(text) == Reference(kind, text, authority, name, version, key)


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "@nodots", "@local/", "@local/../x", "@local/a/b", "@local/a@", "@alice.test/a@b c", "at:x", "at://",
        "at://alice.test", f"at://{DID}", f"at://{DID}/blob/../x", f"at://{DID}/science.alt.dataset.schema/3n2vib7i4g",
        "at://did:plc:short/x", "atdata://local/schema/X@1.0.0", "atdata://local/dataset/", "pipe:cat x",
        "{a,pipe:cat x}",
        "pipe:{a,b}", "@alice.test\n/x",
    ],
)  # fmt: skip
def test_texts_that_name_nothing(text):
    if text in ("@local/", "at://alice.test", f"at://{DID}"):
        assert parse(text).kind == "index"
        return
    with pytest.raises(UsageError):
        parse(text)


@given(st.text())
def test_any_text_is_a_reference_or_a_usage_error(text):
    try:
        reference = parse(text)
    except UsageError:
        return
    assert reference.text == text
