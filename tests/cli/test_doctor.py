"""What ``doctor`` finds, against real servers; what ``stores`` lists."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from atdata_cli.stores.doctor import iam_policy
from atdata_cli.stores.registry import SCHEMES
from tests.cli.conftest import Cli
from tests.servers.network import Authority, forward_proxy, tls_in_front
from tests.servers.proxy import Exchange, Faults, faulty
from tests.servers.seaweed import filesystem

SMALLEST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": ["arn:aws:s3:::b"],
            "Condition": {"StringLike": {"s3:prefix": ["train/v1", "train/v1/*"]}},
        },
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": ["arn:aws:s3:::b/train/v1/*", "arn:aws:s3:::b/train/v1"],
        },
    ],
}


def steps(document: dict) -> dict[str, str]:
    return {check["step"]: check["status"] for check in document["checks"]}


def test_a_folder(cli, tmp_path):
    ran = cli("doctor", "new/folder", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["ok"]
    assert set(steps(ran.document).values()) == {"ok"}
    assert list(steps(ran.document)) == [
        "folder", "list", "put", "conditional put", "read back", "sign", "delete",
    ]  # fmt: skip
    assert not (tmp_path / "new").exists()
    assert cli("doctor", "new/folder", "--read-only").code == 3
    assert cli("doctor", "new/folder", "-q").out == ""


def test_a_folder_that_cannot_be(cli, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file/folder", "file"):
        ran = cli("doctor", name)
        assert ran.code == 2, ran.err
        assert re.search(r"^failed +folder ", ran.out, re.MULTILINE)
        assert re.search(r"^skipped +delete ", ran.out, re.MULTILINE)
        assert ran.err.startswith("atdata-cli: ")


def test_s3(cli, s3_env, s3_bucket, s3_server):
    ran = cli("doctor", f"s3://{s3_bucket}/train/v1", "--json", env=s3_env)
    assert ran.code == 0, ran.err
    found = steps(ran.document)
    assert found.pop("certificate") == "skipped"
    assert set(found.values()) == {"ok"}
    assert {"name resolution", "credentials", "multipart upload", "conditional put", "sign", "delete"} <= set(found)
    assert ran.document["checks"][0]["said"] == "127.0.0.1 is an address"
    assert ran.document["policy"] == iam_policy(s3_bucket, "train/v1")
    assert filesystem(s3_server).find(s3_bucket) == []
    assert s3_server.secret not in ran.out


@pytest.mark.parametrize(
    ("changed", "step", "code", "fix"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "list", 4, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "unknown"}, "list", 4, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials", 4, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://s3.nowhere.invalid"}, "name resolution", 5, "the endpoint"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "list", 5, "try again"),
    ],
)
def test_what_is_wrong_with_s3(cli, s3_env, s3_bucket, changed, step, code, fix):
    env = {**s3_env, "AWS_EC2_METADATA_DISABLED": "true", **changed}
    ran = cli("doctor", f"s3://{s3_bucket}/x", "--json", "--retries", "0", env=env)
    assert ran.code == code, ran.err
    failed = [check for check in ran.document["checks"] if check["status"] == "failed"]
    assert [check["step"] for check in failed] == [step]
    assert fix in failed[0]["fix"]


def test_a_bucket_that_is_not_there(cli, s3_env):
    ran = cli("doctor", "s3://no-such-bucket-here/x", env=s3_env)
    assert ran.code == 3
    assert "there is no such bucket" in ran.err


def test_a_certificate_of_the_house_and_a_proxy(cli, s3_env, s3_bucket, s3_server, tmp_path):
    authority = Authority(tmp_path)
    with tls_in_front(s3_server.endpoint, authority.context("127.0.0.1")) as secure:
        env = {**s3_env, "AWS_ENDPOINT_URL": secure}
        ran = cli("doctor", f"s3://{s3_bucket}/x", env=env)
        assert ran.code == 1
        assert re.search(r"^failed +certificate .*--ca-bundle", ran.out, re.MULTILINE), ran.out
        ran = cli("doctor", f"s3://{s3_bucket}/x", "--ca-bundle", str(authority.file), env=env)
        assert ran.code == 0, ran.out
        assert re.search(r"^ok +certificate +of Test Authority", ran.out, re.MULTILINE), ran.out
    with forward_proxy("me:hush") as proxy:
        ran = cli("doctor", f"s3://{s3_bucket}/x", env={**s3_env, "HTTP_PROXY": proxy.url.replace("//", "//me:hush@")})
        assert ran.code == 0, ran.out
        assert re.search(r"^ok +proxy +through http://", ran.out, re.MULTILINE), ran.out
        assert "hush" not in ran.out


def test_a_pds(cli, pds_account):
    ran = cli("doctor", f"@{pds_account.handle}", "--json", env=pds_account.env)
    assert ran.code == 0, ran.out + ran.err
    found = steps(ran.document)
    assert found["account"] == found["put"] == found["conditional put"] == found["delete"] == "ok"
    assert pds_account.records("local.atdata-cli.upload") == []
    env = {**pds_account.env, "ATDATA_PASSWORD": "wrong"}
    ran = cli("doctor", f"@{pds_account.handle}", env=env)
    assert ran.code == 4
    assert re.search(r"^failed +credentials", ran.out, re.MULTILINE)
    assert cli("doctor", f"@{pds_account.handle}", "--read-only", env=env).code == 0


def test_the_smallest_policy(cli):
    assert iam_policy("b", "/train/v1/", read_only=True) == SMALLEST
    assert "Condition" not in str(iam_policy("b", ""))


# https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html, each with the action that it needs.
def action(one: Exchange) -> str:
    parts = urlsplit(one.path)
    query = parse_qs(parts.query, keep_blank_values=True)
    in_bucket = parts.path.strip("/").count("/") == 0
    if one.method == "GET" and in_bucket:
        return "s3:ListBucketMultipartUploads" if "uploads" in query else "s3:ListBucket"
    if one.method == "POST" and "delete" in query:
        return "s3:DeleteObject"
    if one.method == "DELETE" and "uploadId" in query:
        return "s3:AbortMultipartUpload"
    return {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "DELETE": "s3:DeleteObject"}.get(one.method, "s3:PutObject")


def test_the_policy_allows_what_all_commands_ask_for(cli: Cli, s3_env, s3_server, s3_bucket, rows_file: Path):
    place = f"s3://{s3_bucket}/train/v1"
    faults = Faults()
    with faulty(s3_server.endpoint, faults) as endpoint:
        env = {**s3_env, "AWS_ENDPOINT_URL": endpoint}
        for line in (
            ["write", "rows.jsonl", place, "--max-count", "500"],
            ["write", "rows.jsonl", place, "--max-count", "600", "--if-exists", "update", "--prune"],
            ["inspect", place, "--verify"],
            ["resolve", place, "--check"],
            ["copy", place, "here"],
            ["prune", place],
            ["abort", place],
            ["doctor", place],
        ):
            ran = cli(*line, env=env)
            assert ran.code == 0, (line, ran.err)
    asked = {(action(one), unquote(urlsplit(one.path).path).strip("/"), one.path) for one in faults.seen}
    allowed = iam_policy(s3_bucket, "train/v1")["Statement"]
    actions = {name for statement in allowed for name in statement["Action"]}
    assert {name for name, _, _ in asked} == actions
    for name, path, whole in asked:
        if path == s3_bucket:
            prefix = parse_qs(urlsplit(whole).query).get("prefix", [""])[0]
            deleting = name == "s3:DeleteObject"  # of many: the keys are in the body
            assert deleting or prefix == "train/v1" or prefix.startswith("train/v1/"), whole
        else:
            assert path == f"{s3_bucket}/train/v1" or path.startswith(f"{s3_bucket}/train/v1/"), whole


def test_stores_lists_all_schemes(cli, tmp_path):
    document = cli("stores", "--json").document
    listed = {scheme for kind in document["kinds"] for scheme in kind["schemes"]}
    assert set(SCHEMES) <= listed
    assert {"gs", "az", "hf", "sftp"} <= listed
    assert "pipe" not in listed
    lines = cli("stores").lines
    assert lines[0].split("\t")[0] == "PATH file:"
    assert any(line.startswith("gs: gcs:\tpip install gcsfs\t") for line in lines)
