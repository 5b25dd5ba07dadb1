"""Keys: how a path splits into key and field, which keys are safe, and how rows get theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from atdata_cli.errors import DataError, UsageError
from atdata_cli.samples.unique import UniqueKeys

__all__ = ["KeyTemplate", "UniqueKeys", "check_field", "check_key", "is_meta", "number_keys", "split_name"]

# PATH_MAX on Linux: a longer name could not be unpacked, and nothing legitimate needs it.
_LONGEST = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_META = re.compile(r"__[^/]*__(?:$|/)")
# Most keys are this plain, and then no further question has to be asked.
_PLAIN_KEY = re.compile(r"(?!__)[A-Za-z0-9_-]{1,255}(?:/[A-Za-z0-9_-]{1,255}){0,9}\Z")
_PLAIN_FIELD = re.compile(r"[A-Za-z0-9]{1,32}(?:\.[A-Za-z0-9]{1,32}){0,3}\Z")
_LAST_DIGITS = tuple(f"{number:03d}" for number in range(1000))


def number_keys(numbers: Sequence[int]) -> list[str]:
    """Keys of samples that have none of their own: their record numbers, in ten digits or as many as it takes."""
    if not isinstance(numbers, range):
        return [f"{number:010d}" for number in numbers]
    keys: list[str] = []
    at, stop = numbers.start, numbers.stop
    while at < stop:  # a thousand at a time, which differ in their last digits alone
        thousands, first = divmod(at, 1000)
        last = min(1000, first + stop - at)
        start = f"{thousands:07d}"
        keys += [start + digits for digits in _LAST_DIGITS[first:last]]
        at += last - first
    return keys


def split_name(path: str) -> tuple[str, str] | None:
    """Split a member's name into key and field as ``webdataset.tariterators.base_plus_ext`` does.

    The field begins after the first dot of the basename. The result equals that of the library's regular
    expression ``^((?:.*/|)[^.]+)[.]([^/]*)$`` for every text, but takes time in proportion to its length:
    the expression's grows with the square, and names come from other people's files.

    Returns
    -------
    ``(key, field)``, or None for a name without a field.
    """
    key, _, field = path.partition(".")
    # A key that is empty or ends in a slash belongs to a name that begins with a dot.
    if len(key) < len(path) and "/" not in field and key[-1:] not in "/" and "\n" not in key:
        return key, field
    return _split_oddity(path)


def _split_oddity(path: str) -> tuple[str, str] | None:
    """The rule where a folder's name has a dot, the basename begins with one, or there is a line break."""
    dot = path.find(".", path.rfind("/") + 1)
    if dot < 1:
        return None
    # The part ``(?:.*/|)`` ends at a slash that comes before any line break and leaves at least one
    # character for ``[^.]+``, which must then reach the dot without meeting another: only the last such
    # slash can do.
    newline = path.find("\n")
    last = dot - 1 if newline < 0 else min(newline, dot - 1)
    begin = path.rfind("/", 0, last) + 1
    if path.find(".", begin, dot) >= 0:
        return None
    return path[:dot], path[dot + 1 :]


def is_meta(name: str) -> bool:
    """True for what webdataset's readers pass over: a file or top folder called ``__SOMETHING__``."""
    if not name.startswith("__"):
        return False
    return _META.match(name) is not None or ("/" not in name and name.endswith("__"))


def check_key(key: str) -> str | None:
    """Why a key cannot be used, with what would help; None for a good one.

    A good key gives a member name that every reader splits where it was joined, and that unpacks to a path
    below the current folder and nowhere else.
    """
    if _PLAIN_KEY.match(key):
        return None
    if not key:
        return "the key is empty"
    reason = _unsafe_text(key, "key")
    if reason:
        return reason
    if key.startswith("/"):
        return f"the key {key!r} is an absolute path: leave out the leading slash"
    parts = key.split("/")
    if ".." in parts:
        return f"the key {key!r} leads out of its folder ('..')"
    if "" in parts or "." in parts:
        tidy = "/".join(part for part in parts if part not in ("", "."))
        return f"the key {key!r} is not a plain path" + (f": rename it to {tidy!r}" if tidy else "")
    if "." in parts[-1]:
        renamed = "/".join((*parts[:-1], parts[-1].replace(".", "_")))
        return f"the key {key!r} has a dot, where readers would end it: rename it to {renamed!r}"
    if is_meta(key + "/" if len(parts) == 1 else key) and len(parts) > 1:
        return f"readers skip everything in a top folder named {parts[0]!r}: rename it"
    return None


def check_field(field: str) -> str | None:
    """Why a field's name cannot be a member's file extension, with what would help; None for a good one."""
    if _PLAIN_FIELD.match(field):
        return None
    if not field:
        return "the field's name is empty"
    reason = _unsafe_text(field, "field")
    if reason:
        return reason
    if "/" in field:
        return f"the field {field!r} has a slash"
    if field.startswith("_"):
        return f"the field {field!r} begins with '_', reserved by readers: rename it to {_bare(field)!r}"
    if field.endswith("__"):
        return f"the field {field!r} ends with '__', reserved by readers: rename it to {_bare(field)!r}"
    return None


def _bare(field: str) -> str:
    return field.strip("_") or "field"


def _unsafe_text(text: str, what: str) -> str | None:
    found = _CONTROL.search(text)
    if found:
        return f"the {what} {_shown(text)} has the control character {found.group()!r}: rename it"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return f"the {what} {_shown(text)} is not valid UTF-8: rename it"
    if size > _LONGEST:
        return f"the {what} {_shown(text)} is {size} bytes long, more than {_LONGEST}: shorten it"
    return None


def _shown(text: str) -> str:
    """A text of any length, in ASCII, short enough for a message."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


class KeyTemplate:
    """Makes the key of a row from a template such as ``{stem}-{row}``, or from one field.

    Make one by :meth:`parse`.

    Attributes
    ----------
    text : the template as given.
    fields : the fields of a row that it uses, in order.
    """

    __slots__ = ("_parts", "fields", "text")

    def __init__(self, text: str, parts: tuple[tuple[str, str | None], ...]) -> None:
        self.text = text
        self._parts = parts
        self.fields = tuple(dict.fromkeys(name for _, name in parts if name not in (None, "row", "stem") and name))

    @classmethod
    def parse(cls, text: str) -> KeyTemplate:
        """Read a template.

        Parameters
        ----------
        text : a field's name, or text with placeholders: ``{row}`` (the record's number, 10 digits),
            ``{stem}`` (the stem of the input file) and ``{NAME}`` for the field ``NAME``; ``{{`` and ``}}``
            are braces. A field called ``row`` or ``stem`` can only be named without braces.

        Raises
        ------
        UsageError : it has anything else: attributes, indexes, conversions and format specifications could
            reach into objects, and text from users is not for that.
        """
        if not text:
            raise UsageError(
                "the key template is empty", hint="give a field's name, or a template such as {stem}-{row}"
            )
        if "{" not in text and "}" not in text:
            # Marked by the template's own syntax, so that a field called "row" is still a field.
            return cls._of_field(text)
        import string

        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise _bad_template(text, str(error)) from None
        parts = []
        for literal, name, spec, conversion in pieces:
            if name is not None:
                _check_placeholder(text, name, spec, conversion)
            parts.append((literal, name))
        if all(name is None for _, name in parts):
            raise _bad_template(text, "it has no placeholder, so all keys would be the same")
        return cls(text, tuple(parts))

    @classmethod
    def _of_field(cls, name: str) -> KeyTemplate:
        template = cls(name, ())
        template.fields = (name,)
        return template

    def render(self, row: Mapping[str, Any], number: int, stem: str) -> str:
        """The key of one row; :func:`check_key` says whether it is a good one.

        Parameters
        ----------
        row : field to value.
        number : the record's number among all of the job, from 0.
        stem : the input file's name without folder and endings.

        Raises
        ------
        DataError : a field is missing, null, or neither text nor an integer.
        """
        if not self._parts:
            return _value(row, self.fields[0])
        out = []
        for literal, name in self._parts:
            out.append(literal)
            if name == "row":
                out.append(f"{number:010d}")
            elif name == "stem":
                out.append(stem)
            elif name is not None:
                out.append(_value(row, name))
        return "".join(out)


def _check_placeholder(text: str, name: str, spec: str | None, conversion: str | None) -> None:
    if conversion:
        raise _bad_template(text, f"the conversion '!{conversion}' is not allowed")
    if spec:
        raise _bad_template(text, f"the format ':{spec}' is not allowed")
    if not name:
        raise _bad_template(text, "a placeholder has no name")
    if any(character in name for character in ".[]"):
        raise _bad_template(text, f"'{{{name}}}' reaches into a field, which is not allowed")


def _bad_template(text: str, reason: str) -> UsageError:
    return UsageError(
        f"the key template {text!r} cannot be used: {reason}",
        hint="placeholders are {row}, {stem} and {NAME} of a field",
    )


def _value(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if type(value) is str:
        return value
    if value is None:
        raise DataError(
            f"the key needs the field {name!r}, which is {'null' if name in row else 'missing'}",
            hint="choose another field, or a template with --key",
        )
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        f"the key needs the field {name!r} as text or integer, but it is {type(value).__name__}",
        hint="choose another field, or a template with --key",
    )
