"""The epoll events of a stream socket, what they mean, and the flags of recv and send."""

from __future__ import annotations

import select
import socket
from typing import Final

EVENTS: Final = (
    select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
)
"""What a socket is registered for, for its whole life. Edges of EPOLLOUT come only after a send
that did not take all bytes, so they cost nothing otherwise, and no epoll_ctl is needed when a
receiver is slow."""

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
URGENT: Final = select.EPOLLPRI
BROKEN: Final = select.EPOLLERR
SHUT: Final = select.EPOLLERR | select.EPOLLHUP
"""EPOLLHUP: both ends of the connection are shut."""
READ: Final = ~select.EPOLLOUT
LAST: Final = select.EPOLLIN | select.EPOLLRDHUP
"""Bytes, and behind them the end of the stream."""
NOT_LAST: Final = ~(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT | select.EPOLLHUP)
"""Any other event."""

# MSG_DONTWAIT, because accept4 leaves sockets blocking here: it saves the flag's system call.
RECV_FLAGS: Final = int(socket.MSG_DONTWAIT)
SEND_FLAGS: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
SEND_LAST_FLAGS: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL | socket.MSG_MORE)
"""For bytes that a FIN follows at once."""
