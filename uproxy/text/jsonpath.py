"""kubectl's JSONPath templates: `{range .frontends[*]}{.service}{"\\n"}{end}`.

Text outside of braces is printed as it is. Inside there are paths, quoted texts, `range` and `end`.
Paths are left to python-jsonpath (decision 0020). Only this module uses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import jsonpath
import msgspec

from uproxy.core.printable import printable, printable_json

_MAX_NESTED: Final = 20
"""Ranges in each other. More would exhaust Python's stack before they are of use."""

_Node = Callable[[Any, Any], str]
"""Prints a part of a template, for the current value and the whole document."""

_QUOTED: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_KEYWORD: Final = re.compile(r"(?:range|end)\b")
_PATH: Final = re.compile(
    r"""(?: [^\s\[\]{}"'\\] | \\.
      | \[ (?: [^\[\]{}"'] | "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | \[[^\[\]{}]*\] )* \] )+""",
    re.VERBOSE | re.DOTALL,
)
"""Up to a blank or a brace that is neither quoted nor in brackets."""

_ESCAPED_FIELD: Final = re.compile(r"\.((?:[^.\[\]\\]|\\.)*\\.(?:[^.\[\]\\]|\\.)*)")
"""A field with a dot in its name, as in `.labels.kubernetes\\.io/name`."""
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


class TemplateError(ValueError):
    """A template that cannot be understood or used, on one line."""


class Template:
    """A template, ready to print documents."""

    def __init__(self, text: str) -> None:
        """Raises TemplateError."""
        self._text = text
        self._nodes = _Parser(text).nodes()

    def __repr__(self) -> str:
        return f"<Template {self._text}>"

    def render(self, document: Any) -> str:
        """What it prints of a decoded JSON document. What the document does not have prints
        nothing, and its texts are made printable. Raises TemplateError."""
        return _all(self._nodes, document, document)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def nodes(self, depth: int = 0) -> list[_Node]:
        """The nodes up to the end of the text or, within a range, up to its `end`."""
        nodes: list[_Node] = []
        while self._at < len(self._text):
            before, brace, _ = self._text[self._at :].partition("{")
            nodes.append(_literal(before))
            self._at += len(before) + len(brace)
            if brace and self._is_end(nodes, depth):
                return nodes
        if depth:
            self._fail("a {range ...} has no {end}")
        return nodes

    def _is_end(self, nodes: list[_Node], depth: int) -> bool:
        """Read what is in one pair of braces, and return whether it is the `end` of a range."""
        while not self._take("}"):
            if quoted := self._match(_QUOTED):
                nodes.append(_literal(_unquoted(quoted)))
            elif keyword := self._match(_KEYWORD):
                if keyword == "range":
                    nodes.append(self._range(depth))
                    return False
                if not depth or not self._take("}"):
                    self._fail("{end} stands alone, after a {range ...}")
                return True
            else:
                nodes.append(_printed(self._path()))
        return False

    def _range(self, depth: int) -> _Node:
        path = self._path()
        if not self._take("}"):
            self._fail("a range has one path, as in {range .frontends[*]}")
        if depth == _MAX_NESTED:
            self._fail("there are too many ranges in each other")
        return _repeated(path, self.nodes(depth + 1))

    def _path(self) -> _Path:
        found = self._match(_PATH)
        if not found:
            self._fail("expected a path like .frontends[*].service")
        return _Path(found)

    def _match(self, pattern: re.Pattern[str]) -> str:
        self._skip_blanks()
        found = pattern.match(self._text, self._at)
        self._at += len(found[0]) if found else 0
        return found[0] if found else ""

    def _take(self, mark: str) -> bool:
        self._skip_blanks()
        found = self._text.startswith(mark, self._at)
        self._at += len(mark) if found else 0
        return found

    def _skip_blanks(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def _fail(self, reason: str) -> NoReturn:
        near = self._text[self._at : self._at + 20]
        raise TemplateError(f"{reason}, {f'before {near!r}' if near else 'at the end'}")


class _Path:
    def __init__(self, text: str) -> None:
        self._text = text
        self._from_root = text.startswith("$")
        # kubectl writes "." for the value itself, and "@" outside of filters, too.
        path = text[text.startswith(("$", "@")) :].removesuffix(".")
        try:
            self._query = jsonpath.compile("$" + _ESCAPED_FIELD.sub(_in_brackets, path))
        except (jsonpath.JSONPathError, RecursionError) as error:
            raise self._error(error) from None

    def values(self, value: Any, root: Any) -> Sequence[Any]:
        try:
            return self._query.findall(root if self._from_root else value)
        except (jsonpath.JSONPathError, RecursionError) as error:
            raise self._error(error) from None

    def _error(self, error: Exception) -> TemplateError:
        return TemplateError(f"{str(error).partition(chr(10))[0]}, in {self._text!r}")


def _in_brackets(field: re.Match[str]) -> str:
    name = re.sub(r"\\(.)", r"\1", field[1], flags=re.DOTALL)
    return f"[{msgspec.json.encode(name).decode()}]"


def _unquoted(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        return _ESCAPES.get(found[1], found[1])

    return re.sub(r"\\(.)", character, text[1:-1], flags=re.DOTALL)


def _all(nodes: Sequence[_Node], value: Any, root: Any) -> str:
    return "".join(node(value, root) for node in nodes)


def _literal(text: str) -> _Node:
    return lambda value, root: text


def _printed(path: _Path) -> _Node:
    return lambda value, root: " ".join(map(_shown, path.values(value, root)))


def _repeated(path: _Path, nodes: Sequence[_Node]) -> _Node:
    return lambda value, root: "".join(_all(nodes, each, root) for each in path.values(value, root))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    return printable_json(msgspec.json.encode(value)).decode()
