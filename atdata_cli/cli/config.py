"""``atdata-cli config``: every setting, and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from atdata_cli.cli import options as opt
from atdata_cli.cli.output import Output
from atdata_cli.cli.settings import NamedStore, Settings
from atdata_cli.config import SETTINGS, VARIABLES
from atdata_cli.errors import AtdataError
from atdata_cli.refs import printable, redact

__all__ = ["config"]

_MASK = "***"
_SECRET_WORDS = ("key", "secret", "token", "password", "passwd", "credential", "auth", "sas", "connection_string")


def config(
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """Show every setting, and where it comes from. What is typed counts more than all of them.

    After the command line come the environment, the project's atdata.toml and your own file. Secrets are not shown.
    """
    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=True, color=color)
    document = _document(opt.settings())
    if json:
        output.document(document)
        return
    rows = list(_rows(document))
    if output.rich_stdout:
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        output.data([f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}".rstrip() for name, value, origin in rows])
    else:
        output.data(["\t".join(row) for row in rows])


def _document(found: Settings) -> dict[str, Any]:
    return {
        "files": {
            "user": {"path": found.user_file, "exists": os.path.isfile(found.user_file)},
            "project": {
                "path": found.project_file,
                "exists": found.project_file is not None,
                "problem": _problem(found.problem),
            },
        },
        "settings": list(_settings(found)),
        "stores": {name: _store(store) for name, store in found.stores.items()},
        "environment": {
            name: _MASK if VARIABLES[name].secret else redact(os.environ[name])
            for name in VARIABLES
            if os.environ.get(name)
        },
    }


def _settings(found: Settings) -> Iterator[dict[str, Any]]:
    """Every setting; one that differs from command to command comes several times."""
    for setting in SETTINGS.values():
        tables = [name for name, values in found.user.items() if name and setting.name in values]
        for command in setting.commands or ("", *tables):
            told = found.value(setting, command)
            yield {
                "name": setting.name,
                "command": command or None,
                "value": redact(told.value) if isinstance(told.value, str) else told.value,
                "default": dict(setting.defaults).get(command, setting.default) or None,
                "origin": told.origin or "default",
            }


def _problem(error: AtdataError | None) -> str | None:
    if error is None:
        return None
    return redact(error.message + (f" ({error.hint})" if error.hint else ""))


def _store(store: NamedStore) -> dict[str, Any]:
    return {
        "url": redact(store.url),
        "endpoint-url": store.endpoint_url,
        "profile": store.profile,
        "region": store.region,
        "no-sign-request": store.no_sign_request,
        "options": {name: _masked(name, value) for name, value in store.options.items()},
    }


def _masked(name: str, value: str) -> str:
    return _MASK if any(word in name.lower() for word in _SECRET_WORDS) else redact(value)


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, value, origin) of everything, as text."""
    for which, file in document["files"].items():
        if file["path"]:
            problem = file.get("problem")
            wrong = f"not used: {printable(problem)}" if problem else ""
            yield f"{which} file", printable(file["path"]), wrong if file["exists"] else "not there"
    for one in document["settings"]:
        name = f"{one['command']}.{one['name']}" if one["command"] else one["name"]
        yield name, _text(one["default"] if one["origin"] == "default" else one["value"]), printable(one["origin"])
    for name, store in document["stores"].items():
        said = {key: value for key, value in store.items() if key != "url" and value}
        reached = " ".join([printable(store["url"]), *(f"{key}={_text(value)}" for key, value in said.items())])
        yield f"{name}:", reached, printable(document["files"]["user"]["path"])
    for name, value in document["environment"].items():
        yield name, printable(value), "environment"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return printable(",".join(f"{key}={item}" for key, item in value.items()))
    return printable(" ".join(map(str, value)) if isinstance(value, list) else str(value))
