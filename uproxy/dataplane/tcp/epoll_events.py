"""What epoll says of a stream socket, and what the relay makes of it."""

from __future__ import annotations

import select
from typing import Final

EVENTS: Final = (
    select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
)
"""Of a socket for its whole life."""

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
URGENT: Final = select.EPOLLPRI
BROKEN: Final = select.EPOLLERR
SHUT: Final = select.EPOLLERR | select.EPOLLHUP
READ: Final = ~select.EPOLLOUT
LAST: Final = select.EPOLLIN | select.EPOLLRDHUP
"""Bytes, and behind them the end of the stream."""
NOT_LAST: Final = ~(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT | select.EPOLLHUP)
"""Whatever else there may be."""
