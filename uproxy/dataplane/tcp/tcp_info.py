"""What the kernel knows of a connection (TCP_INFO, tcp(7))."""

from __future__ import annotations

import struct
from _socket import IPPROTO_TCP, TCP_INFO
from _socket import socket as Socket
from typing import Final

_INFO: Final = struct.Struct("=68xI28xI")
"""Two fields of struct tcp_info (linux/tcp.h): tcpi_rtt and tcpi_total_retrans. Only the beginning
of the struct is asked for, since kernels add fields at its end."""


def path_quality(sock: Socket) -> tuple[int, int]:
    """The smoothed round-trip time in microseconds, and how many segments were sent again. Zeros if
    the kernel does not say, as gVisor."""
    try:
        info = sock.getsockopt(IPPROTO_TCP, TCP_INFO, _INFO.size)
        return _INFO.unpack(info)
    except (OSError, struct.error):
        return 0, 0
