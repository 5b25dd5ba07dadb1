"""Environment variables, defined once."""

import os

import pytest

from atdata_cli import config


def test_every_variable_is_described_once():
    assert list(config.VARIABLES) == [variable.name for variable in config.VARIABLES.values()]
    assert all(variable.meaning for variable in config.VARIABLES.values())
    assert {name for name, variable in config.VARIABLES.items() if variable.secret} == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "ATDATA_PASSWORD",
        "ATPROTO_APP_PASSWORD",
    }


def test_only_documented_variables_can_be_read(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert config.get("AWS_PROFILE") == "lab"
    monkeypatch.setenv("AWS_PROFILE", "")
    assert config.get("AWS_PROFILE") is None
    with pytest.raises(KeyError):
        config.get("PATH")


def test_the_more_specific_variable_wins(monkeypatch):
    for name in config.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert config.s3_endpoint_url() is None
    assert config.s3_region() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://a")
    assert config.s3_endpoint_url() == "http://a"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://b")
    assert config.s3_endpoint_url() == "http://b"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "x")
    monkeypatch.setenv("AWS_REGION", "y")
    assert config.s3_region() == "y"


def test_colour_switches(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not config.no_color()
    assert config.force_color()
    monkeypatch.setenv("NO_COLOR", "0")
    assert config.no_color()


def test_cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert config.cache_home() == os.path.join(tmp_path, ".cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert config.cache_home() == "/var/cache/me"
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert config.state_home() == os.path.join(tmp_path, ".local", "state")


def test_the_account(monkeypatch, tmp_path):
    for name in config.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert (config.account_handle(), config.account_password(), config.pds_url()) == (None, None, None)
    monkeypatch.setenv("ATPROTO_HANDLE", "b.test")
    monkeypatch.setenv("ATPROTO_APP_PASSWORD", "second")
    monkeypatch.setenv("ATPROTO_PDS_URL", "https://b")
    assert (config.account_handle(), config.account_password(), config.pds_url()) == ("b.test", "second", "https://b")
    file = tmp_path / "password"
    file.write_text("from file\n")
    monkeypatch.setenv("ATDATA_PASSWORD_FILE", str(file))
    assert config.account_password() == "from file"
    monkeypatch.setenv("ATDATA_HANDLE", "a.test")
    monkeypatch.setenv("ATDATA_PASSWORD", "first")
    monkeypatch.setenv("ATDATA_PDS_URL", "https://a")
    assert (config.account_handle(), config.account_password(), config.pds_url()) == ("a.test", "first", "https://a")
