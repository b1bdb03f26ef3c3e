"""The format of what the API server sends: lists, the lines of a watch, events, errors. Pure.

Objects stay raw until it is known that they are wanted. Decoding a whole event into one generic
structure first would cost several times as much.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated, Final, NamedTuple

import msgspec

from uproxy.core.brief import brief
from uproxy.text.json_text import UNREADABLE

LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of an event or an object. In etcd an object has at most 1.5 MiB, and several times as many
in JSON. A hostile server can make 3 bytes an endpoint, so that the decoded object takes 30
times as much memory."""
_MOST_VALUES: Final = 8_000_000
"""Values in a list. Each of its items takes 50 bytes of memory before it is decoded."""

_BLANK_LINES: Final = re.compile(rb"\n{2,}")

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
"""Annotation of the bookmark after the last initial event (KEP-3157)."""


class MalformedAnswer(Exception):
    """Something that no API server sends; the message is the reason, in one line."""


class LineBuffer:
    """Cuts a stream, which comes in chunks, into lines."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0
        """Bytes in them."""

    @property
    def cut(self) -> bool:
        """Whether the stream so far ends in the middle of a line."""
        return bool(self._pieces)

    @property
    def rest(self) -> bytes:
        """The beginning of a line that has not ended yet."""
        return b"".join(self._pieces)

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The lines that end in this chunk, without empty ones.

        Raises MalformedAnswer where a line is too long, whether it has ended or not.
        """
        # An empty line would take 60 times its length in memory, and a hostile server may send
        # nothing but empty lines.
        first, *others = _BLANK_LINES.sub(b"\n", chunk).split(b"\n")
        self._size += len(first)
        if self._size > self._longest:
            raise MalformedAnswer(f"a line of more than {self._longest >> 20} MiB")
        if not others:
            self._pieces.append(first)
            return ()
        ended = [b"".join((*self._pieces, first)), *others[:-1]]
        self._pieces = [others[-1]] if others[-1] else []
        self._size = len(others[-1])
        return [each for each in ended if each.strip()]


class Event(NamedTuple):
    """An event of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED, BOOKMARK or ERROR. Later versions may have others."""
    obj: msgspec.Raw


class _Line(msgspec.Struct):
    type: str = ""
    object: msgspec.Raw = msgspec.Raw()
    kind: str = ""


_LINE: Final = msgspec.json.Decoder(_Line)


def read_event(line: bytes) -> Event | None:
    """An event; None where the line is a list instead, from a server that has ignored `watch`.

    Raises MalformedAnswer.
    """
    try:
        found = _LINE.decode(line)
    except UNREADABLE as error:
        raise MalformedAnswer(
            brief(f"a watch sent something that is not an event: {error}")
        ) from None
    if found.type and bytes(found.object):
        return Event(found.type, found.object)
    if found.kind.endswith("List"):
        return None
    raise MalformedAnswer("a watch sent something that is not an event: no type, or no object")


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that identify an object. They can be read even if the rest cannot."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Identified(msgspec.Struct):
    metadata: Metadata


_IDENTIFIED: Final = msgspec.json.Decoder(_Identified)


def metadata_of(raw: msgspec.Raw | bytes) -> Metadata | None:
    """The metadata; None where not even these fields can be read."""
    try:
        return _IDENTIFIED.decode(raw).metadata
    except UNREADABLE:
        return None


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


_LIST: Final = msgspec.json.Decoder(_List)


class Page(NamedTuple):
    """A list, or a page of one."""

    version: str
    next: str
    """Token with which the next page is asked for; "": this is the last."""
    items: Sequence[msgspec.Raw]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a response asks the client to wait, as a number or a date (RFC 9110, 10.2.3).

    A date is compared with the server's own clock, its `Date` header. `now` is our Unix time, for
    servers that send none.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    moment = _http_date(text)
    if moment is None:
        return None
    theirs = _http_date(headers.get("Date", ""))
    return max(0.0, moment - (now if theirs is None else theirs))


def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text[:100])
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def read_page(body: bytes) -> Page:
    """Raises MalformedAnswer."""
    if len(body) > _MOST_VALUES and body.count(b",") > _MOST_VALUES:
        raise MalformedAnswer(f"a list has more than {_MOST_VALUES:,} values")
    try:
        found = _LIST.decode(body)
    except UNREADABLE as error:
        raise MalformedAnswer(brief(f"the answer is not a list: {error}")) from None
    if any(memoryview(each).nbytes > LONGEST_LINE for each in found.items or ()):
        raise MalformedAnswer(f"a list has an object of more than {LONGEST_LINE >> 20} MiB")
    return Page(found.metadata.resource_version, found.metadata.continue_, found.items or ())


_Whole = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
"""int32, as the API has it."""


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: _Whole = 0


class Failure(msgspec.Struct):
    """A Status object of the API: why a request failed."""

    code: _Whole = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None

    def __str__(self) -> str:
        text = brief(self.message or self.reason)
        return f"{self.code}: {text}" if text else str(self.code)

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks the client to wait."""
        seconds = self.details.retry_after_seconds if self.details is not None else 0
        return float(seconds) if seconds > 0 else None


def read_failure(body: bytes | msgspec.Raw, code: int = 0) -> Failure:
    """The Status in a response or an ERROR event; where there is none, a Failure with this code."""
    try:
        found = msgspec.json.decode(body, type=Failure)
    except UNREADABLE:
        return Failure(code=code)
    return found if found.code else msgspec.structs.replace(found, code=code)
