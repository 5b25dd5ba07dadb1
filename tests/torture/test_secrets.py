"""Nothing that is told in confidence is in what a run prints, writes, or is called with, however it fails.

All other campaigns look for secrets, too; here are the failures that have most to do with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.servers.network import ForwardProxy, forward_proxy
from tests.torture.runs import Tool

PRESIGNED = "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k&X-Amz-Signature=" + "0123456789abcdef" * 4


@pytest.fixture
def login(tool: Tool) -> Iterator[ForwardProxy]:
    with forward_proxy(f"user:{tool.secrets.values['PROXY_PASSWORD']}") as proxy:
        yield proxy


@pytest.mark.parametrize("told", [(), ("--json", "-v")], ids=str)
def test_failures_with_secrets(tool, store, s3_bucket, login, told):
    (tool.folder / "rows.jsonl").write_text('{"id": 1}\n')
    store.put("in/rows.jsonl", b'{"id": 1}\n')
    store.put("in/broken.jsonl", b'{"id": nonsense}\n')
    password, token = tool.secrets.values["PROXY_PASSWORD"], tool.secrets.values["AWS_SESSION_TOKEN"]
    dest = f"s3://{s3_bucket}/out"
    proxied = login.url.replace("//", f"//user:{quote(password, safe='')}@")
    wrong = login.url.replace("//", f"//somebody:{quote(password[:-1] + 'x', safe='')}@")
    nobody = "http://127.0.0.1:9"
    few = ("--retries", "0", *told)
    # A URL with a signature is in the list of processes by its user's wish, if it is an argument.
    signed = f"{tool.env['AWS_ENDPOINT_URL']}/{s3_bucket}/in/rows.jsonl{PRESIGNED}"
    endpoint = tool.env["AWS_ENDPOINT_URL"].replace("//", f"//user:{quote(password, safe='')}@")
    tool.secrets.add(WRONG_PASSWORD=password[:-1] + "x")

    def fails(*arguments: str, code: int, env: dict[str, str] | None = None) -> None:
        ran = tool(*arguments, *few, env=env)
        assert ran.code == code, (arguments, ran.err)
        if "--json" in told:
            assert json.loads(ran.err.splitlines()[-1])["error"]["exit"] == code

    fails("write", "rows.jsonl", dest, code=4, env={"AWS_ACCESS_KEY_ID": "nobody"})
    fails("write", "rows.jsonl", dest, code=4, env={"AWS_SESSION_TOKEN": token, "AWS_ACCESS_KEY_ID": "nobody"})
    fails("write", "rows.jsonl", dest, code=5, env={"AWS_SESSION_TOKEN": token, "AWS_ENDPOINT_URL": nobody})
    fails("write", "rows.jsonl", dest, code=4, env={"HTTP_PROXY": wrong})
    fails("write", "rows.jsonl", dest, code=5, env={"HTTP_PROXY": f"http://user:{quote(password)}@127.0.0.1:9"})
    fails("write", "rows.jsonl", dest, code=2, env={"HTTP_PROXY": f"socks5://user:{quote(password)}@127.0.0.1:9"})
    fails("write", "rows.jsonl", dest, code=2, env={"AWS_ENDPOINT_URL": endpoint})
    fails("write", "rows.jsonl", dest, code=2, env={"AWS_ENDPOINT_URL": f"ftp://user:{quote(password)}@host"})
    fails("write", f"s3://{s3_bucket}/in/broken.jsonl", dest, code=1, env={"HTTP_PROXY": proxied})
    ran = tool("write", f"s3://{s3_bucket}/in/rows.jsonl", dest, *told, env={"HTTP_PROXY": proxied})
    assert ran.code == 0, ran.err
    tool.secrets.check_objects(store, "out")
    for arguments in (
        ("write", signed, "out"),
        ("copy", signed, "out"),
        ("inspect", signed),
        ("publish", signed, "@local/x"),
    ):
        ran = tool(*arguments, *few, watched=False)
        assert ran.code != 0, (arguments, ran.err)


def test_a_signed_source_is_named_without_its_signature(tool, store, s3_bucket, s3_server):
    """A URL with a signature is read, and what comes of it says nothing of the signature."""
    store.put("in/rows.jsonl", b'{"id": 1}\n' * 100 + b"broken\n")
    url = store.read_url(f"s3://{s3_bucket}/in/rows.jsonl")
    ran = tool("write", url, "out", watched=False)
    assert ran.code == 1, ran.err
    ran = tool("write", url, "out", "--on-error", "skip", "--rejects", "rejects.jsonl", "--json", "-v", watched=False)
    assert ran.code == 7, ran.err
    tool.secrets.check_files(tool.folder / "out", tool.folder / "home")
    tool.secrets.check("rejects", (tool.folder / "rejects.jsonl").read_bytes())
