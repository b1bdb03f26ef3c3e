"""Plain data from a text, together with the line of every field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_VALUES = 1_000_000
"""Values in one document, as many as in a List of 25,000 Services. Each takes about 300 bytes while
the document is read."""

Parts = tuple[str | int, ...]
"""The path from a document to one of its fields: names and list indexes."""

_PART = re.compile(r"\[(?P<index>[0-9]+)\]|(?P<any>\[\.\.\.\])|(?P<name>[^.\[\]]+)")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Lines(NamedTuple):
    """Where a field starts, and where the fields inside it do."""

    line: int
    """Counted from 1. The line of the key where there is one, else of the value."""
    parts: dict[str | int, Lines] | None = None

    def at(self, parts: Parts) -> int:
        """The line of a field, or of the innermost value around it that exists."""
        found = self
        for part in parts:
            if found.parts is None or part not in found.parts:
                break
            found = found.parts[part]
        return found.line


class Document(NamedTuple):
    """One document of a text that may hold several."""

    data: Any
    """dict (with string keys), list, str, int, float, bool or None. It must not be modified,
    because aliases share the value that they stand for."""
    locate: Callable[[Parts], int]
    """Returns the line of a field. It is found only when asked for, as only fields with errors need
    it."""


class Malformed(ValueError):
    """A text, or a document in it, that cannot be read at all."""

    def __init__(self, reason: str, line: int, column: int = 0) -> None:
        where = f"line {line}, column {column}" if column else f"line {line}"
        super().__init__(f"{where}: {reason}")
        self.reason = reason
        self.line = line
        """Counted from 1, like `column`."""
        self.column = column
        """0: unknown."""


def decode_text(raw: bytes) -> str:
    """Text from UTF-8, with or without a byte order mark. Raises Malformed."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        reason = f"not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
        raise Malformed(reason, before.count(b"\n") + 1, column) from None


def parse_parts(path: str, data: Any) -> Parts:
    """Split a path that msgspec has written, such as "spec.ports[0].port".

    msgspec writes "[...]" for a value of a free-form mapping, whatever its key. In the types that
    are decoded here such values are text, so the first value that is not text is meant.
    """
    parts: list[str | int] = []
    for match in _PART.finditer(path):
        if match["any"]:
            part: str | int | None = _first_odd(data)
        else:
            part = int(match["index"]) if match["index"] else match["name"]
        if part is None:
            break
        parts.append(part)
        data = value_at(data, (part,))
    return tuple(parts)


def join_parts(parts: Parts) -> str:
    """The path of a field as Kubernetes writes it: "metadata.annotations[example.com/x]"."""
    path = ""
    for part in parts:
        if isinstance(part, str) and _PLAIN_NAME.fullmatch(part):
            path += f".{part}" if path else part
        else:
            path += f"[{part}]"
    return path


def value_at(data: Any, parts: Parts) -> Any:
    """The value of a field, or None where there is none."""
    for part in parts:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _first_odd(data: Any) -> str | None:
    if not isinstance(data, dict):
        return None
    return next((key for key, value in data.items() if not isinstance(value, str)), None)
