"""The JSON Schemas of what the program prints, read strictly: what they do not name must not be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema

import atdata_cli.cli

FOLDER = Path(atdata_cli.cli.__file__).with_name("schemas")


@cache
def checker(name: str) -> Callable[[Any], Any]:
    """Raises for a document that is not as the schema says."""
    return fastjsonschema.compile(_strict(json.loads((FOLDER / f"{name}.json").read_text())))  # type: ignore[no-any-return]


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        strict.setdefault("additionalProperties", False)
    return strict


def check(arguments: list[str], out: str, err: str) -> None:
    """Hold what a run of the command line has printed against the schemas."""
    typed = arguments[: arguments.index("--")] if "--" in arguments else arguments
    events = "--json-events" in typed
    if "--json" in typed and out:
        checker(typed[0])(json.loads(out))
    for line in err.splitlines():
        if line.startswith('{"error"'):
            checker("error")(json.loads(line))
        elif events and line.startswith("{"):
            checker("events")(json.loads(line))
