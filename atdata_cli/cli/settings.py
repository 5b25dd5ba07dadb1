"""What the environment and the configuration files say: defaults of a command's options, and named stores.

An option on the command line comes first, then the environment, the project's file, the user's file. What each of
them may say is in the one table of :mod:`atdata_cli.config`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from atdata_cli import config
from atdata_cli.config import PROJECT_FILE, SETTINGS, Setting
from atdata_cli.errors import AtdataError, UsageError, from_os_error
from atdata_cli.refs import join, local_path, scheme

__all__ = ["NamedStore", "Settings", "Value", "load"]

_LONGEST = 1 << 20
_COLORS = {"NO_COLOR": "never", "FORCE_COLOR": "always"}  # whatever their value
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_OF_PROJECTS = frozenset({"write"})  # the commands whose options a project's file sets
_STORE_NAME = r"[A-Za-z][A-Za-z0-9-]+"
_STORE_KEYS = ("url", "endpoint-url", "profile", "region", "no-sign-request", "options")


@dataclass(frozen=True, slots=True)
class Value:
    """What a setting is.

    Attributes
    ----------
    value : as the option takes it; None if nobody says anything.
    origin : the variable or file that says so; empty for the default.
    rank : of the origin; the highest counts.
    standard : a variable that what uses the setting reads by itself.
    """

    value: Any
    origin: str = ""
    rank: int = 0
    standard: bool = False


@dataclass(frozen=True, slots=True)
class NamedStore:
    """A place that the user's file gives a name: ``NAME:PATH`` is *url* and PATH below it."""

    name: str
    url: str
    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None
    no_sign_request: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of one run.

    Attributes
    ----------
    user_file, project_file : paths; None for a project's file that is not there.
    user, project : what they hold: table (a command's name, or empty for all) to name to value.
    stores : the user's named stores.
    problem : why the project's file cannot be used.
    """

    user_file: str
    project_file: str | None = None
    user: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    project: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stores: Mapping[str, NamedStore] = field(default_factory=dict)
    problem: AtdataError | None = None

    def value(self, setting: Setting, command: str) -> Value:
        """What a setting is for a command, unless the command line says otherwise."""
        text = os.environ.get(setting.variable)
        if text:
            return Value(_from_text(setting, text), setting.variable, 3)
        for name in setting.standard:
            text = config.get(name)
            if text is not None:
                return Value(_COLORS.get(name, text), name, 3, standard=True)
        if setting.name in self.project.get(command, {}):
            return Value(self.project[command][setting.name], self.project_file or "", 2)
        for table in (command, ""):
            if setting.name in self.user.get(table, {}):
                return Value(self.user[table][setting.name], self.user_file, 1)
        text = config.get(setting.last) if setting.last else None
        return Value(None) if text is None else Value(text, setting.last, standard=True)

    def defaults(self, command: str) -> dict[str, Value]:
        """What options of a command are set to, by their names; standard variables are left to those who read them.

        Raises
        ------
        AtdataError : the project's file, which counts for this command, is not what it should be.
        """
        if self.problem is not None and command in _OF_PROJECTS:
            raise self.problem
        found = {
            setting.name: self.value(setting, command)
            for setting in SETTINGS.values()
            if not setting.commands or command in setting.commands
        }
        return {name: value for name, value in found.items() if value.origin and not value.standard}

    def expand(self, text: str) -> tuple[str, NamedStore | None]:
        """The URL that ``NAME:PATH`` stands for, and the store; *text* itself if it names none.

        Raises
        ------
        UsageError : the path leads out of the store.
        """
        name, colon, path = text.partition(":")
        store = self.stores.get(name) if colon and not path.startswith("//") else None
        if store is None:
            return text, None
        if ".." in path.split("/"):
            raise UsageError("a path below a named store cannot have '..' in it", url=text)
        path = path.lstrip("/")
        return (join(store.url.rstrip("/"), path) if path else store.url), store


def load(file: str | None = None) -> Settings:
    """Read the configuration.

    Parameters
    ----------
    file : instead of the user's own; must be there. Default ``ATDATA_CLI_CONFIG``, then the XDG folder.

    Raises
    ------
    UsageError : the user's file is not what it should be.
    AtdataError : it cannot be read.
    """
    named = file if file is not None else config.get("ATDATA_CLI_CONFIG")
    user_file = named if named is not None else config.config_file()
    user, stores = _user_tables(_parsed(user_file, needed=named is not None), user_file)
    project_file = _project_file()
    project: _Tables = {}
    problem = None
    if project_file is not None:
        try:
            project = _project_tables(_parsed(project_file), project_file, user_file)
        except AtdataError as error:
            problem = error
    return Settings(user_file, project_file, user, project, stores, problem)


def _project_file() -> str | None:
    """In the folder that the command runs in, or above it in the same repository."""
    above: list[str] = []
    for _ in range(64):
        prefix = "".join(above)
        found = prefix + PROJECT_FILE
        in_repository = os.path.lexists(f"{prefix}.git")
        if os.path.isfile(found) and (not above or in_repository or _repository_above(prefix)):
            return os.path.abspath(found)
        if in_repository or os.path.ismount(prefix or "."):
            return None
        above.append("../")
    return None


def _repository_above(prefix: str) -> bool:
    for _ in range(64):
        if os.path.lexists(f"{prefix}.git"):
            return True
        if os.path.ismount(prefix):
            return False
        prefix += "../"
    return False


def _parsed(path: str, *, needed: bool = False) -> dict[str, Any]:
    """A file of TOML; empty where there is none, or none that this user may read."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_LONGEST + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if needed:
            raise from_os_error(error, path, doing="read") from error
        return {}
    except OSError as error:
        raise from_os_error(error, path, doing="read") from error
    if len(data) > _LONGEST:
        raise UsageError("this is too long for a configuration", url=path, hint="is this the right file?")
    import tomllib  # only where there is a file: it takes 10 ms

    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"the configuration is not TOML: {error}", url=path, hint="mend the file, or move it away"
        ) from error


_Tables = dict[str, dict[str, Any]]


def _user_tables(document: dict[str, Any], path: str) -> tuple[_Tables, dict[str, NamedStore]]:
    from atdata_cli.cli.app import COMMANDS

    tables: _Tables = {"": {}}
    stores = {}
    for key, value in document.items():
        if key == "stores":
            if not isinstance(value, dict):
                raise UsageError("stores are tables: [stores.NAME]", url=path, hint="name each store")
            stores = {name: _named_store(name, store, path) for name, store in value.items()}
        elif isinstance(value, dict):
            if key not in COMMANDS:
                raise UsageError(
                    f"[{key}] is no command", url=path, hint=_nearest(key, COMMANDS) or "and no [stores.NAME]"
                )
            tables[key] = {name: _from_file(name, item, key, path) for name, item in value.items()}
        else:
            tables[""][key] = _from_file(key, value, "", path)
    return tables, stores


def _project_tables(document: dict[str, Any], path: str, user_file: str) -> _Tables:
    values = document.get("write", {})
    # A project comes from anybody: it may say how data are written, never where to or as whom.
    strangers = [key for key in document if key != "write"]
    if not isinstance(values, dict):
        strangers, values = ["write"], {}
    strangers += [name for name in values if name in SETTINGS and not SETTINGS[name].project]
    if strangers:
        raise UsageError(
            f"a project's file sets options of write, in [write], and nothing else: '{strangers[0]}' cannot be there",
            url=path,
            hint=f"your own file is {user_file}",
        )
    table = {name: _from_file(name, value, "write", path) for name, value in values.items()}
    if "schema" in table:
        table["schema"] = _beside(path, table["schema"])
    return {"write": table}


def _beside(path: str, name: str) -> str:
    """A file that a project names: in the project's folder."""
    if scheme(name) or os.path.isabs(name) or ".." in name.split("/"):
        raise UsageError(f"a project's schema is a file in its folder, not '{name}'", url=path)
    return os.path.join(os.path.dirname(path), name)


def _from_file(name: str, value: Any, command: str, path: str) -> Any:
    """A value of a file, as the option takes it."""
    setting = SETTINGS.get(name)
    if setting is None or (setting.commands and command not in setting.commands):
        where = f"[{command}]" if command else "all commands"
        if setting is not None:
            raise UsageError(f"'{name}' is no setting of {where}", url=path, hint=f"of [{setting.commands[0]}]")
        raise UsageError(f"'{name}' is no setting of {where}", url=path, hint=_nearest(name, SETTINGS))
    fits = {
        "text": type(value) is str,
        "number": type(value) is int,
        "flag": type(value) is bool,
        "size": type(value) in (str, int),
        "time": type(value) in (str, int, float),
        "list": isinstance(value, list) and all(type(item) is str for item in value),
    }
    if not fits[setting.kind]:
        raise UsageError(f"'{name}' cannot be {value!r}", url=path, hint=f"it is a {setting.kind}")
    return str(value) if setting.kind in ("size", "time") else value


def _from_text(setting: Setting, text: str) -> Any:
    """A value of the environment, as the option takes it."""
    if setting.kind == "list":
        return text.split()
    if setting.kind == "flag":
        if text.lower() not in _TRUE + _FALSE:
            raise UsageError(f"{setting.variable} cannot be '{text}'", hint="1 or 0")
        return text.lower() in _TRUE
    return text


def _named_store(name: str, table: Any, path: str) -> NamedStore:
    where = f"[stores.{name}]"
    if not isinstance(table, dict):
        raise UsageError(f"{where} is no table", url=path, hint="write it as a TOML table")
    _check_store_name(name, path)
    for key in table:
        if key not in _STORE_KEYS:
            raise UsageError(f"{where}: '{key}' is not known", url=path, hint=f"{', '.join(_STORE_KEYS)} are")
    texts = {key: table[key] for key in ("url", "endpoint-url", "profile", "region") if key in table}
    unsigned, options = table.get("no-sign-request", False), table.get("options", {})
    if not all(type(text) is str and text for text in texts.values()) or type(unsigned) is not bool:
        raise UsageError(f"{where}: url, endpoint-url, profile and region are text, no-sign-request a flag", url=path)
    if not isinstance(options, dict):
        raise UsageError(
            f"{where}: options are a table", url=path, hint='write them as a TOML table: options = {KEY = "VALUE"}'
        )
    return NamedStore(
        name,
        _store_url(texts.get("url", ""), where, path),
        texts.get("endpoint-url"),
        texts.get("profile"),
        texts.get("region"),
        unsigned,
        {str(key): value if type(value) is str else _json(value) for key, value in options.items()},
    )


def _check_store_name(name: str, path: str) -> None:
    from atdata_cli.refs import is_unsafe
    from atdata_cli.stores.registry import is_scheme

    if not re.fullmatch(_STORE_NAME, name):
        raise UsageError(f"'{name}' cannot name a store", url=path, hint="letters, digits and '-', two at least")
    if is_unsafe(name) or is_scheme(name.lower()):
        raise UsageError(f"'{name}' cannot name a store: '{name}:' is a scheme", url=path, hint="choose another name")


def _store_url(url: str, where: str, path: str) -> str:
    """The URL of a named store: of one place, whatever folder a command runs in."""
    if url.startswith("~"):
        url = os.path.expanduser(url)
    if not url or url.startswith("@") or (not scheme(url) and not os.path.isabs(url)):
        raise UsageError(f"{where} needs a URL, or the whole path of a folder", url=path, hint='url = "s3://bucket/x"')
    return local_path(url) if scheme(url) == "file" else url


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def _nearest(name: str, names: Any) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(name, list(names), n=1)
    return f"did you mean '{near[0]}'?" if near else None


def outranked(typed: Mapping[str, int]) -> Iterator[str]:
    """Names of options that an alternative of a higher rank puts out.

    Parameters
    ----------
    typed : name to rank of all options that were given, on the command line above all.
    """
    for alternatives in config.RIVALS:
        ranks = [max((typed.get(name, 0) for name in names), default=0) for names in alternatives]
        best = max(ranks)
        for names, rank in zip(alternatives, ranks, strict=True):
            if rank < best:
                yield from names
