"""Lets a server answer whether a PROXY header precedes what clients send, or not.

A Service with the annotation `uproxy.dev/proxy-protocol` has its pods told the client's address in
such a header. The pods of the demo have no use for it.
"""

from __future__ import annotations

import asyncio
from typing import Final

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = 16
"""Bytes of a header of version 2 that are always there. The last two are the number of the rest."""
_V1_MOST: Final = 107
"""Bytes of a header of version 1, by its specification."""


def without_header(start: bytes) -> bytes | None:
    """What follows the header at the start of a stream; all of it if there is none. None: that
    cannot be said before more has arrived."""
    if start[: len(_V2)] == _V2[: len(start)]:
        if len(start) < _V2_FIXED:
            return None
        end = _V2_FIXED + int.from_bytes(start[14:16])
        return start[end:] if len(start) >= end else None
    if start[: len(_V1)] == _V1[: len(start)]:
        header, newline, rest = start.partition(b"\r\n")
        if newline:
            return rest
        return None if len(header) < _V1_MOST else start
    return start


class WithoutHeader(asyncio.Protocol):
    """Passes everything on to the protocol of a server, except a header."""

    def __init__(self, server: asyncio.Protocol) -> None:
        self._server = server
        self._start: bytes | None = b""
        """What has arrived; None once the header has been left out."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._start is None:
            self._server.data_received(data)
            return
        self._start += data
        rest = without_header(self._start)
        if rest is not None:
            self._start = None
            if rest:
                self._server.data_received(rest)

    def eof_received(self) -> bool | None:
        return self._server.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connection_lost(exc)

    def pause_writing(self) -> None:
        self._server.pause_writing()

    def resume_writing(self) -> None:
        self._server.resume_writing()
