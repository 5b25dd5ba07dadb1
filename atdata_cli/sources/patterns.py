"""Globs that choose files by name: ``--include`` and ``--exclude``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from atdata_cli.errors import UsageError

__all__ = ["name_filter"]


def name_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A function that says whether a relative path is wanted.

    Parameters
    ----------
    include : patterns of which at least one must match; none for everything.
    exclude : patterns of which none may match.

    A pattern without a slash matches the basename, any other the whole relative path, where ``**`` stands
    for any number of folders and a slash at the end for everything below the folder. ``*``, ``?`` and
    ``[...]`` never match a slash.

    Raises
    ------
    UsageError : a pattern cannot be read.
    """
    wanted = _any_of(include) if include else None
    unwanted = _any_of(exclude) if exclude else None

    def is_wanted(path: str) -> bool:
        if wanted is not None and not wanted(path):
            return False
        return unwanted is None or not unwanted(path)

    return is_wanted


def _any_of(patterns: Sequence[str]) -> Callable[[str], bool]:
    names = [_expression(pattern) for pattern in patterns if "/" not in pattern]
    paths = [_expression(pattern) for pattern in patterns if "/" in pattern]
    by_name = re.compile("|".join(names), re.DOTALL).fullmatch if names else None
    by_path = re.compile("|".join(paths), re.DOTALL).fullmatch if paths else None

    def matches(path: str) -> bool:
        if by_name is not None and by_name(path[path.rfind("/") + 1 :]):
            return True
        return by_path is not None and by_path(path) is not None

    return matches


def _whole(pattern: str) -> str:
    pattern = pattern.removeprefix("./").lstrip("/")
    return pattern + "**" if pattern.endswith("/") else pattern


_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[!^]?+\]?+[^]]*\]|.", re.DOTALL)
_MEMBERS = re.compile(r"(.)-(.)|(.)", re.DOTALL)
_MEANINGS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _expression(pattern: str) -> str:
    tokens = _TOKENS.findall(_whole(pattern) if "/" in pattern else pattern)
    expression = "".join(_MEANINGS.get(token) or _character(token) for token in tokens)
    try:
        re.compile(expression)
    except re.error as error:
        raise UsageError(f"the pattern {pattern!r} cannot be read: {error.msg}") from error
    return expression


def _character(token: str) -> str:
    if len(token) == 1:
        return re.escape(token)
    negated = token[1] in "!^"
    members = token[2:-1] if negated else token[1:-1]
    # Only ranges keep a meaning inside the brackets; "/" is outside every set.
    escaped = _MEMBERS.sub(lambda found: "-".join(re.escape(text) for text in found.groups() if text), members)
    return f"(?!/)[{'^' if negated else ''}{escaped}]"
