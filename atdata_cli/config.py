"""The environment variables that the tool reads: defined once, for code, help, man pages and docs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "PROJECT_FILE",
    "RIVALS",
    "SETTINGS",
    "VARIABLES",
    "Setting",
    "Variable",
    "account_handle",
    "account_password",
    "cache_home",
    "config_file",
    "force_color",
    "get",
    "local_index",
    "no_color",
    "pds_url",
    "plc_url",
    "s3_endpoint_url",
    "s3_region",
    "state_home",
]


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    Attributes
    ----------
    name : as in the environment.
    meaning : one line for help and man pages.
    secret : its value must never be printed.
    """

    name: str
    meaning: str
    secret: bool = False


_TABLE = (
    Variable("AWS_ENDPOINT_URL", "URL of the S3 server, for stores that are not Amazon's"),
    Variable("AWS_ENDPOINT_URL_S3", "the same for S3 alone; wins over AWS_ENDPOINT_URL"),
    Variable("AWS_ACCESS_KEY_ID", "access key for s3: URLs", secret=True),
    Variable("AWS_SECRET_ACCESS_KEY", "secret key for s3: URLs", secret=True),
    Variable("AWS_SESSION_TOKEN", "session token of temporary credentials", secret=True),
    Variable("AWS_REGION", "region of the bucket"),
    Variable("AWS_DEFAULT_REGION", "region of the bucket, if AWS_REGION is not set"),
    Variable("AWS_PROFILE", "profile of the AWS configuration files to use"),
    Variable("AWS_CA_BUNDLE", "file of the certificate authorities to trust for s3: URLs"),
    Variable("SSL_CERT_FILE", "the same for all servers, if nothing else is named"),
    Variable("HTTPS_PROXY", "URL of the proxy for https: servers; https_proxy wins"),
    Variable("HTTP_PROXY", "the same for http: servers; only http_proxy counts in a CGI script"),
    Variable("ALL_PROXY", "the same for both, where the others are not set"),
    Variable("NO_PROXY", "hosts, domains and networks (10.0.0.0/8) that are reached without one, with commas between"),
    Variable("ATDATA_RETRIES", "how often a request is repeated after a temporary failure, as --retries"),
    Variable("ATDATA_TIMEOUT", "seconds for which a server may be silent, as --timeout"),
    Variable("ATDATA_CA_BUNDLE", "file of the certificate authorities to trust, as --ca-bundle"),
    Variable("ATDATA_INDEX", "file of the local index; ~/.atdata/index.db by default"),
    Variable("ATDATA_HANDLE", "handle of your account on the AT Protocol"),
    Variable("ATDATA_PASSWORD", "its password, better an app password; with it no login is needed", secret=True),
    Variable("ATDATA_PASSWORD_FILE", "file that holds the password"),
    Variable("ATDATA_PDS_URL", "URL of the account's server (PDS), where the handle does not lead to it"),
    Variable("ATDATA_PLC_URL", "URL of the PLC directory; https://plc.directory by default"),
    Variable("ATPROTO_HANDLE", "the same as ATDATA_HANDLE, which wins"),
    Variable("ATPROTO_APP_PASSWORD", "the same as ATDATA_PASSWORD, which wins", secret=True),
    Variable("ATPROTO_PDS_URL", "the same as ATDATA_PDS_URL, which wins"),
    Variable("SLURM_ARRAY_TASK_ID", "which job of a SLURM array this is, for --part auto"),
    Variable("SLURM_ARRAY_TASK_COUNT", "how many jobs the array has"),
    Variable("SLURM_ARRAY_TASK_MIN", "number of its first job"),
    Variable("SLURM_ARRAY_TASK_STEP", "how far the numbers of its jobs are apart"),
    Variable("CI_NODE_INDEX", "which of a CI job's parallel runs this is, for --part auto"),
    Variable("CI_NODE_TOTAL", "how many of them there are"),
    Variable("NO_COLOR", "no colour in messages, if not empty"),
    Variable("FORCE_COLOR", "colour in messages also outside a terminal, if not empty"),
    Variable("CI", "no progress bar, if not empty, also where a CI system gives its jobs a terminal"),
    Variable("ATDATA_CLI_CONFIG", "file to read instead of config.toml in XDG_CONFIG_HOME, as --config"),
    Variable(
        "XDG_CONFIG_HOME", "folder of configuration, of which atdata-cli/config.toml is read; ~/.config by default"
    ),
    Variable("XDG_CACHE_HOME", "folder of caches; ~/.cache by default"),
    Variable("XDG_STATE_HOME", "folder of state, sessions among it; ~/.local/state by default"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One option that the environment or a configuration file can give a value.

    Attributes
    ----------
    name : of the option, without its dashes: in files too.
    kind : ``text``, ``number``, ``flag``, ``size``, ``time``, or ``list`` for what can be repeated.
    commands : that have the option; empty for all that do.
    project : a project's file may set it: it changes what is written, never where or as whom.
    standard : variables that mean the same and that other tools read too; the first one that is set counts.
    last : such a variable that counts only where no file says anything.
    default : what holds if nobody says anything, in words.
    defaults : (command, default) where it is another.
    """

    name: str
    kind: str
    commands: tuple[str, ...] = ()
    project: bool = False
    standard: tuple[str, ...] = ()
    last: str = ""
    default: str = ""
    defaults: tuple[tuple[str, str], ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that is this program's own for it."""
        return "ATDATA_CLI_" + self.name.upper().replace("-", "_")


_WRITE = ("write",)

_SETTINGS = (
    Setting("endpoint-url", "text", standard=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), default="Amazon's"),
    Setting("profile", "text", standard=("AWS_PROFILE",), default="default"),
    Setting("region", "text", standard=("AWS_REGION", "AWS_DEFAULT_REGION"), default="us-east-1"),
    Setting("retries", "number", standard=("ATDATA_RETRIES",), default="6"),
    Setting("timeout", "time", standard=("ATDATA_TIMEOUT",), default="60s"),
    Setting(
        "ca-bundle",
        "text",
        standard=("ATDATA_CA_BUNDLE",),
        last="SSL_CERT_FILE",
        default="the system's; for s3: URLs AWS_CA_BUNDLE, if it is set",
    ),
    Setting("index", "text", standard=("ATDATA_INDEX",), default="~/.atdata/index.db"),
    Setting("color", "text", standard=("NO_COLOR", "FORCE_COLOR"), default="auto"),
    Setting("no-progress", "flag", default="false"),
    Setting("quiet", "flag", default="false"),
    Setting("verbose", "flag", default="false"),
    Setting("jobs", "number", ("write", "copy", "inspect", "publish"), default="the cores", defaults=(("copy", "4"),)),
    Setting("expires", "time", ("resolve",), default="1h"),
    Setting("exit-unchanged", "flag", ("write", "publish"), project=True, default="false"),
    Setting("max-count", "number", _WRITE, project=True, default="10000"),
    Setting("max-size", "size", _WRITE, project=True, default="1G"),
    Setting("shards", "number", _WRITE, project=True),
    Setting("shards-multiple-of", "number", _WRITE, project=True),
    Setting("name", "text", _WRITE, project=True, default="the first SOURCE's"),
    Setting("from", "text", _WRITE, project=True, default="by the SOURCE's name"),
    Setting("key", "text", _WRITE, project=True),
    Setting("fields", "text", _WRITE, project=True, default="all"),
    Setting("encoding", "text", _WRITE, project=True, default="by the source"),
    Setting("embed", "list", _WRITE, project=True),
    Setting("include", "list", _WRITE, project=True, default="all files"),
    Setting("exclude", "list", _WRITE, project=True),
    Setting("null", "text", _WRITE, project=True),
    Setting("no-infer", "flag", _WRITE, project=True, default="false"),
    Setting("schema", "text", _WRITE, project=True),
    Setting("split", "text", _WRITE, project=True),
    Setting("split-by", "text", _WRITE, project=True),
    Setting("split-from", "text", _WRITE, project=True),
    Setting("shuffle", "flag", _WRITE, project=True, default="false"),
    Setting("seed", "number", _WRITE, project=True, default="0"),
    Setting("compress", "text", _WRITE, project=True, default="no"),
    Setting("if-exists", "text", _WRITE, project=True, default="resume"),
    Setting("on-error", "text", _WRITE, project=True, default="fail"),
    Setting("max-errors", "number", _WRITE, project=True),
    Setting("min-samples", "number", _WRITE, project=True, default="0"),
    Setting("allow-empty", "flag", _WRITE, project=True, default="false"),
)

SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _SETTINGS}
"""Name to definition, in the order in which they are documented."""

RIVALS = (
    (("max-count", "max-size"), ("shards",), ("shards-multiple-of",)),
    (("split", "split-by"), ("split-from",)),
)
"""Alternatives that exclude each other: one that is typed puts those out that a file or the environment sets."""

PROJECT_FILE = "atdata.toml"
"""The file of a project, beside its data or above them; it may set options of ``write`` only."""

VARIABLES: Mapping[str, Variable] = {variable.name: variable for variable in _TABLE} | {
    setting.variable: Variable(setting.variable, f"the default of --{setting.name}") for setting in _SETTINGS
}
"""Name to definition, in the order in which they are documented."""


def get(name: str) -> str | None:
    """The value of a variable of :data:`VARIABLES`; None if it is unset or empty.

    Empty counts as unset, as ``VAR= command`` and CI systems mean it. A name that is not in the table is a
    ``KeyError``: what is read must be documented.
    """
    return os.environ.get(VARIABLES[name].name) or None


def s3_endpoint_url() -> str | None:
    """URL of the S3 server that the environment names, in the order in which the AWS tools look."""
    return get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL")


def s3_region() -> str | None:
    """Region that the environment names."""
    return get("AWS_REGION") or get("AWS_DEFAULT_REGION")


def account_handle() -> str | None:
    """Handle (or DID) of the account that the environment names."""
    return get("ATDATA_HANDLE") or get("ATPROTO_HANDLE")


def account_password() -> str | None:
    """Password of :func:`account_handle`, if the environment holds it or names a file that does.

    Raises
    ------
    OSError : the file cannot be read.
    """
    password = get("ATDATA_PASSWORD")
    file = get("ATDATA_PASSWORD_FILE")
    if password is None and file is not None:
        with open(file, encoding="utf-8") as lines:
            password = lines.readline(10_000).rstrip("\r\n") or None
    return password or get("ATPROTO_APP_PASSWORD")


def pds_url() -> str | None:
    """URL of the account's server that the environment names."""
    return get("ATDATA_PDS_URL") or get("ATPROTO_PDS_URL")


def plc_url() -> str | None:
    """URL of the PLC directory that the environment names."""
    return get("ATDATA_PLC_URL")


def no_color() -> bool:
    """Whether colour is switched off (https://no-color.org: any value that is not empty)."""
    return get("NO_COLOR") is not None


def force_color() -> bool:
    """Whether colour is asked for outside a terminal too; :func:`no_color` wins."""
    return get("FORCE_COLOR") is not None


def cache_home() -> str:
    """Folder of caches, by the XDG base directory rules: a relative XDG_CACHE_HOME is ignored."""
    return _home("XDG_CACHE_HOME", ".cache")


def config_file() -> str:
    """The user's configuration file, by the same rules."""
    return os.path.join(_home("XDG_CONFIG_HOME", ".config"), "atdata-cli", "config.toml")


def state_home() -> str:
    """Folder of state, by the same rules."""
    return _home("XDG_STATE_HOME", os.path.join(".local", "state"))


def _home(variable: str, default: str) -> str:
    named = get(variable)
    if named and os.path.isabs(named):
        return named
    return os.path.join(_user_home(), default)


def _user_home() -> str:
    """HOME, else what the system says; a folder that is not there if it does not know this user.

    An empty HOME counts as unset, for it would make paths from the root; and without an answer
    ``os.path.expanduser`` would make paths from the folder that the command runs in.
    """
    home = os.environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir or _NO_HOME
    except KeyError:
        return _NO_HOME


_NO_HOME = "/nonexistent"


def local_index() -> str:
    """Path of the local index; the default is where the reference library has it."""
    named = get("ATDATA_INDEX")
    return os.path.expanduser(named) if named else os.path.join(_user_home(), ".atdata", "index.db")
