"""Messages as bytes on a stream: frames of a 4-byte length and a msgpack array of messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

_LENGTH: Final = struct.Struct("!I")
_ARRAY: Final = struct.Struct("!BI")
"""Head of a msgpack "array 32", whose items follow one by one."""
_ARRAY_32: Final = 0xDD
_LONGEST: Final = 1 << 28
"""Bytes; no sender announces more. The longest message is a route, with some MiB of backends."""

M = TypeVar("M")


class FrameError(ValueError):
    """The other end has sent bytes that are no frame of messages."""


def frame(encoded: Sequence[bytes]) -> bytearray:
    """One frame of messages that are encoded already."""
    framed = bytearray(_LENGTH.pack(_ARRAY.size + sum(map(len, encoded))))
    framed += _ARRAY.pack(_ARRAY_32, len(encoded))
    for each in encoded:
        framed += each
    return framed


class FrameReader(Generic[M]):
    """Takes bytes as they arrive, cut anywhere, and gives whole messages of one kind."""

    def __init__(self, kind: type[M]) -> None:
        self._decoder: msgspec.msgpack.Decoder[list[M]] = msgspec.msgpack.Decoder(list[kind])  # type: ignore[valid-type]
        self._received = bytearray()

    def feed(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._received += data

    def frames(self) -> Iterator[list[M]]:
        """The messages of each frame that is complete. Raises FrameError behind the last frame that
        makes sense; what was given until then is valid."""
        start = 0
        try:
            while (body := self._body(start)) is not None:
                start += _LENGTH.size + len(body)
                yield self._decoded(body)
        finally:
            del self._received[:start]

    def _body(self, start: int) -> bytes | None:
        """The bytes of the frame that begins there; None while it is not complete."""
        begin = start + _LENGTH.size
        if len(self._received) < begin:
            return None
        (size,) = _LENGTH.unpack_from(self._received, start)
        if size > _LONGEST:
            raise FrameError(f"a frame of {size} bytes was announced")
        if len(self._received) < begin + size:
            return None
        return bytes(memoryview(self._received)[begin : begin + size])

    def _decoded(self, body: bytes) -> list[M]:
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise FrameError(str(error)) from error
