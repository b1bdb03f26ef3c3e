"""JSON with the line of every field.

It is read by the standard library's decoder, not by msgspec's, because only the former can report a
key that is given twice, which the API server refuses too, and can read several documents in one
text, as `kubectl` does.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

import msgspec

from uproxy.core.brief import brief_name
from uproxy.text.document import MAX_VALUES, Document, Lines, Malformed, Parts

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a text that is not JSON or has the wrong structure, is not UTF-8, or is
nested too deep."""

_MAX_DIGITS = 20
"""Characters of -2 ** 63 and of 2 ** 64."""
_SPACE = re.compile(r"[ \t\r\n]*")
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that may be one half of a pair without the other."""


def json_documents(text: str) -> Iterator[Document | Malformed]:
    """The documents of a text. What comes after a malformed one cannot be read."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_constant, parse_int=_whole
    )
    breaks = _Breaks(text)
    start = _skip_space(text, 0)
    if _too_many_values(text):
        yield Malformed(f"more than {MAX_VALUES:,} values; split it into several files", 1)
        return
    while start < len(text):
        try:
            data, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            yield Malformed(f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}", *_place(error))
            return
        except RecursionError:
            yield Malformed("nested too deep", breaks.line(start))
            return
        except ValueError as error:
            yield _refused(text, breaks, start, error)
            return
        if _LONE_SURROGATE.search(text, start, end) and not _encodable(data):
            yield Malformed("half a surrogate pair in a string", breaks.line(start))
            return
        yield Document(data, _locator(text, breaks, start))
        start = _skip_space(text, end)


def _too_many_values(text: str) -> bool:
    """Each value but the first one follows one of these characters. Those within strings are
    counted too, but hardly matter."""
    if len(text) <= MAX_VALUES:
        return False
    return sum(text.count(each) for each in "{[,:") > 2 * MAX_VALUES


def _place(error: json.JSONDecodeError) -> tuple[int, int]:
    return error.lineno, error.colno


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _whole(digits: str) -> int | float:
    """A whole number of at most 64 bits, else a float: no field needs more, and Python refuses to
    convert numbers of more than 4,300 digits."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _encodable(data: Any) -> bool:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _refused(text: str, breaks: _Breaks, start: int, error: ValueError) -> Malformed:
    """Find out where the error is, which the hooks of the decoder are not told."""
    try:
        _Positions(text, breaks).read(start)
    except Malformed as found:
        return found
    except RecursionError:
        pass
    return Malformed(str(error), breaks.line(start))


def _locator(text: str, breaks: _Breaks, start: int) -> Callable[[Parts], int]:
    @cache
    def lines() -> Lines:
        try:
            return _Positions(text, breaks).read(start)[0]
        except RecursionError:
            return Lines(breaks.line(start))

    def locate(parts: Parts) -> int:
        return lines().at(parts)

    return locate


def _skip_space(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    assert match is not None
    return match.end()


class _Breaks:
    """The ends of a text's lines. They are found once for all documents, and only if needed."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _found(self) -> list[int]:
        return [match.start() for match in re.finditer("\n", self._text)]

    def line(self, index: int) -> int:
        """The line of a character, counted from 1."""
        return bisect_right(self._found, index) + 1


class _Positions:
    """Finds the line of every value, by reading a second time, and slower, what the decoder has
    accepted."""

    def __init__(self, text: str, breaks: _Breaks) -> None:
        self._text = text
        self._line = breaks.line
        self._decoder = json.JSONDecoder(parse_constant=_constant, parse_int=_whole)

    def read(self, index: int) -> tuple[Lines, int]:
        """The lines of the value that begins at `index`, and where it ends. Raises Malformed."""
        first = self._text[index]
        if first == "{":
            return self._object(index)
        if first == "[":
            return self._array(index)
        try:
            _, end = self._decoder.raw_decode(self._text, index)
        except ValueError as error:
            raise Malformed(str(error).partition(";")[0], self._line(index)) from None
        return Lines(self._line(index)), end

    def _object(self, start: int) -> tuple[Lines, int]:
        parts: dict[str | int, Lines] = {}
        index = _skip_space(self._text, start + 1)
        while self._text[index] != "}":
            if self._text[index] == ",":
                index = _skip_space(self._text, index + 1)
            line = self._line(index)
            key, index = scanstring(self._text, index + 1)
            if key in parts:
                raise Malformed(f'the key "{brief_name(key)}" is given twice; remove one', line)
            colon = _skip_space(self._text, index)
            value, index = self.read(_skip_space(self._text, colon + 1))
            parts[key] = Lines(line, value.parts)
            index = _skip_space(self._text, index)
        return Lines(self._line(start), parts), index + 1

    def _array(self, start: int) -> tuple[Lines, int]:
        parts: dict[str | int, Lines] = {}
        index = _skip_space(self._text, start + 1)
        while self._text[index] != "]":
            if self._text[index] == ",":
                index = _skip_space(self._text, index + 1)
            parts[len(parts)], index = self.read(index)
            index = _skip_space(self._text, index)
        return Lines(self._line(start), parts), index + 1
