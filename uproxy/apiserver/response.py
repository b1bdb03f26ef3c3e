"""A response of the API server, read in parts, so that none can fill the memory."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any, Final

from uproxy.apiserver.request import MAX_BODY
from uproxy.apiserver.unreachable import ApiUnreachable, ConnectionReplaced, as_unreachable

_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A connection that is cut off without a FIN or RST is noticed after a minute, even while a watch
waits for the next event."""


class StreamedResponse:
    """A response of aiohttp's, which may still be arriving."""

    def __init__(self, response: Any, errors: tuple[type[Exception], ...]) -> None:
        self._response = response
        self._errors = errors
        self._replaced = ""
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        """Names are not case-sensitive."""

    async def read(self, most: int = MAX_BODY) -> bytes:
        """The rest of the body. Raises ApiUnreachable where it ends too early, or is larger."""
        pieces, size = list[bytes](), 0
        while piece := await self.chunk():
            size += len(piece)
            if size > most:
                raise ApiUnreachable(f"an answer is larger than {most >> 20} MiB")
            pieces.append(piece)
        return b"".join(pieces)

    async def chunk(self) -> bytes:
        """The next bytes, b"" at the end. Raises ApiUnreachable where it ends too early."""
        try:
            with as_unreachable(self._errors):
                some: bytes = await self._response.content.readany()
                return some
        except ApiUnreachable:
            if self._replaced:
                raise ConnectionReplaced(self._replaced) from None
            raise

    def cut_off(self, reason: str) -> None:
        """Whoever reads from now on gets ConnectionReplaced, with this reason."""
        self._replaced = reason
        self._response.content.set_exception(ConnectionError(reason))

    def close(self) -> None:
        """Keep the connection for other requests if the response was read to its end."""
        self._response.release() if self._response.content.at_eof() else self._response.close()

    def keep_alive(self) -> None:
        """Have the kernel probe a connection over which nothing may come for minutes."""
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                for option in _KEEPALIVE:
                    sock.setsockopt(*option)
