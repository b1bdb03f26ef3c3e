"""Ending a connection by a reset."""

from __future__ import annotations

import struct
from _socket import SO_LINGER, SOL_SOCKET
from _socket import socket as Socket
from contextlib import suppress
from typing import Final

LINGER: Final = struct.pack("ii", 1, 0)
"""struct linger, on and 0 seconds: close(2) sends RST and leaves no TIME_WAIT."""


def reset(sock: Socket) -> None:
    """Close with RST, whatever is unread or unsent. Without SO_LINGER the kernel sends RST only if
    something is unread, and a FIN otherwise, which looks like the end of a complete stream."""
    with suppress(OSError):
        sock.setsockopt(SOL_SOCKET, SO_LINGER, LINGER)
    sock.close()
