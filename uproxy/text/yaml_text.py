"""YAML as Kubernetes reads it, from libyaml's events. yaml_output.py writes it.

PyYAML's own loaders are not used, because they turn dates into objects, silently let the last one
of duplicate keys win, read the IPv6 address 1:2:3:4:5:6:7:8 as a number of base 60, expand aliases
without limit, and recurse in C until a text of brackets overflows the stack and ends the process
(decision 0004).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import yaml

from uproxy.text.document import MAX_VALUES, Document, Lines, Malformed
from uproxy.text.yaml_scalars import plain_value

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 200
"""Kubernetes objects nest about 15 deep, the schemas of custom resources about 60."""
_MAX_REPEATED = 100_000
"""Values that all aliases of one document together may stand for. A few lines of aliases of aliases
could stand for billions."""
_MAX_REPEATED_TEXT = 16 * 1024 * 1024
"""Characters of those values, because a single one of them may be as long as the file."""

_BOUNDARY = re.compile(r"^(?=---(?:[ \t\r\n]|\Z))", re.MULTILINE)
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = (_TAG + "str", _TAG + "timestamp", "!")
_TYPED_TAGS = (_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null")
_COLLECTION_TAGS = (None, "!", _TAG + "map", _TAG + "seq")


def yaml_documents(text: str) -> Iterator[Document | Malformed]:
    """The documents of a YAML stream. One that is malformed does not hide those after it."""
    line = 1
    for piece in _pieces(text):
        try:
            yield from _parse(piece, line)
        except Malformed as error:
            yield error
        line += piece.count("\n")


def _pieces(text: str) -> Iterator[str]:
    """Cut the text in front of each "---". This is safe because no scalar may have one at the start
    of a line (YAML 1.1, 4.1.2), and necessary because libyaml cannot go on after an error.

    Directives such as "%YAML 1.1" belong to the document after them.
    """
    held = ""
    for piece in _BOUNDARY.split(text):
        piece = held + piece
        held = piece if _only_directives(piece) else ""
        if piece and not held:
            yield piece
    if held:
        yield held


def _only_directives(piece: str) -> bool:
    return piece.startswith("%") and all(not s or s[0] in "%#" for s in piece.splitlines())


def _parse(piece: str, first_line: int) -> Iterator[Document]:
    builder = _Builder(first_line)
    try:
        for event in yaml.parse(piece, Loader=_Loader):
            node = builder.feed(event)
            if node is not None:
                yield Document(node.data, node.lines.at)
    except yaml.MarkedYAMLError as error:
        raise _malformed(error, first_line) from None
    except yaml.reader.ReaderError as error:
        before = piece[: error.position]
        raise Malformed(
            f"not YAML: {error.reason}",
            first_line + before.count("\n"),
            len(before) - before.rfind("\n"),
        ) from None


def _malformed(error: yaml.MarkedYAMLError, first_line: int) -> Malformed:
    mark = error.problem_mark or error.context_mark
    reason = " ".join(filter(None, [error.context, error.problem]))
    if mark is None:
        return Malformed(f"not YAML: {reason}", first_line)
    return Malformed(f"not YAML: {reason}", first_line + mark.line, mark.column + 1)


class _Node(NamedTuple):
    data: Any
    lines: Lines
    size: int
    """The number of values in it, itself included, with everything that aliases stand for."""
    text: int
    """Characters of those values."""


class _Collection:
    """A mapping or list whose end has not been seen yet."""

    __slots__ = ("anchor", "data", "key", "line", "lines", "merges", "size", "text")

    def __init__(self, data: dict[str, Any] | list[Any], line: int, anchor: str | None) -> None:
        self.data = data
        self.line = line
        self.anchor = anchor
        self.lines: dict[str | int, Lines] = {}
        self.size = 1
        self.text = 0
        self.key: tuple[str, int] | None = None
        """The key whose value comes next, and its line."""
        self.merges: list[_Node] = []
        """The values of "<<" keys. They are merged at the end, because keys that are written out
        win."""


class _Builder:
    """Builds data from events, without recursion."""

    def __init__(self, first_line: int) -> None:
        self._first_line = first_line
        self._open: list[_Collection] = []
        self._anchors: dict[str, _Node | None] = {}
        """Values by anchor; None: the value is not complete yet."""
        self._repeated = 0
        self._repeated_text = 0
        self._values = 0
        """Events of this document, of which each value has one, and each collection a second
        one."""

    def feed(self, event: yaml.Event) -> _Node | None:
        """Take the next event; returns the document when it is complete. Raises Malformed."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._error(f"more than {MAX_VALUES:,} values; split it", event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            return self._end()
        elif isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()
            self._repeated = self._repeated_text = self._values = 0
        return None

    def _line(self, event: yaml.Event) -> int:
        mark = event.start_mark
        assert mark is not None, "libyaml marks every event"
        return self._first_line + mark.line

    def _error(self, reason: str, event: yaml.Event) -> Malformed:
        column = event.start_mark.column + 1 if event.start_mark is not None else 0
        return Malformed(reason, self._line(event), column)

    def _scalar(self, event: yaml.ScalarEvent) -> _Node | None:
        tag, text = event.tag, event.value
        if (tag is None and event.implicit[0]) or tag in _TYPED_TAGS:
            data = plain_value(text)
        elif tag is None or tag in _TEXT_TAGS:
            data = text
        else:
            raise self._error(f"the tag {tag} is not supported; leave it out", event)
        node = _Node(data, Lines(self._line(event)), 1, len(text))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if data == "<<" and event.implicit[0] and self._wants_key():
            self._open[-1].key = ("<<", 0)
            return None
        return self._add(node, event)

    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].data, dict) and not self._open[-1].key

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) == _MAX_DEPTH:
            raise self._error(f"nested more than {_MAX_DEPTH} levels deep", event)
        if event.tag not in _COLLECTION_TAGS:
            raise self._error(f"the tag {event.tag} is not supported; leave it out", event)
        if self._wants_key():
            raise self._error("a key must be text, not a mapping or a list", event)
        data: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(_Collection(data, self._line(event), event.anchor))
        if event.anchor is not None:
            self._anchors[event.anchor] = None

    def _end(self) -> _Node | None:
        done = self._open.pop()
        for merge in done.merges:
            _merge(done, merge)
        node = _Node(done.data, Lines(done.line, done.lines), done.size, done.text)
        if done.anchor is not None:
            self._anchors[done.anchor] = node
        return self._add(node, None)

    def _alias(self, event: yaml.AliasEvent) -> _Node | None:
        if event.anchor not in self._anchors:
            raise self._error(f"the alias *{event.anchor} has no anchor before it", event)
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(f"the alias *{event.anchor} contains itself", event)
        self._repeated += node.size
        if self._repeated > _MAX_REPEATED:
            raise self._error(f"aliases expand to more than {_MAX_REPEATED} values", event)
        self._repeated_text += node.text
        if self._repeated_text > _MAX_REPEATED_TEXT:
            most = f"{_MAX_REPEATED_TEXT >> 20} MiB of text"
            raise self._error(f"aliases expand to more than {most}", event)
        return self._add(node, event)

    def _add(self, node: _Node, event: yaml.Event | None) -> _Node | None:
        """Put a finished value where it belongs; `event` is None only for collections."""
        if not self._open:
            return node
        around = self._open[-1]
        around.size += node.size
        around.text += node.text
        if isinstance(around.data, list):
            around.lines[len(around.data)] = node.lines
            around.data.append(node.data)
        elif around.key is None:
            assert event is not None, "a collection as a key is refused where it starts"
            around.key = (self._new_key(around.data, node.data, event), self._line(event))
        else:
            self._set(around, node)
        return None

    def _set(self, around: _Collection, node: _Node) -> None:
        assert isinstance(around.data, dict)
        assert around.key is not None
        key, line = around.key
        around.key = None
        if line == 0:
            if not isinstance(node.data, dict | list):
                raise Malformed('"<<" needs a mapping, or a list of them', node.lines.line)
            around.merges.append(node)
            return
        around.data[key] = node.data
        around.lines[key] = Lines(line, node.lines.parts)

    def _new_key(self, mapping: dict[str, Any], value: Any, event: yaml.Event) -> str:
        if isinstance(value, bool):
            key = "true" if value else "false"
        elif isinstance(value, str | int | float):
            key = str(value)
        else:
            raise self._error("a key must be text", event)
        if key in mapping:
            raise self._error(f'the key "{key}" is given twice; remove one', event)
        return key


def _merge(into: _Collection, node: _Node) -> None:
    """Add the fields of a "<<" key. Fields that are written out win over these, and fields of an
    earlier mapping in the list over those of a later one."""
    assert isinstance(into.data, dict)
    if isinstance(node.data, list):
        parts = node.lines.parts or {}
        sources = [(each, parts[index].parts) for index, each in enumerate(node.data)]
    else:
        sources = [(node.data, node.lines.parts)]
    for data, lines in sources:
        if not isinstance(data, dict):
            raise Malformed('"<<" needs a mapping, or a list of them', node.lines.line)
        for key, value in data.items():
            if key not in into.data:
                into.data[key] = value
                into.lines[key] = (lines or {})[key]
