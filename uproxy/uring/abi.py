"""What io_uring(7) looks like in memory, on little-endian machines.

Numbers are those of include/uapi/linux/io_uring.h.
"""

from __future__ import annotations

import struct
from typing import Final

RESULT: Final = 0xFFFF_FFFF
"""The lower half of a completion. Above it are the kernel's flags, and the number of a buffer."""
FAILED: Final = 0x8000_0000
"""Set in a result that is an errno, negated."""
HAS_BUFFER: Final = 1 << 32
MORE: Final = 2 << 32
"""Set while a multishot operation goes on."""
UNSENT: Final = 1 << 46
"""Set by us for a send that the kernel has not carried out completely."""
BUFFER_SHIFT: Final = 48

OVERFLOW: Final = 1 << 1
"""In the flags of the submission queue: there are more completions than fit into their queue."""

SEND_FAILED: Final = 1 << 62
"""Set in the user data of sends, which complete only when something is left."""
IGNORED: Final = 1 << 63
"""User data of operations whose completion nobody waits for."""
KEY: Final = (1 << 44) - 1
BUFFER_IN_KEY: Final = 44
BUFFER_OF_KEY: Final = 0xFFFF << BUFFER_IN_KEY
BUFFER_TO_COMPLETION: Final = BUFFER_SHIFT - BUFFER_IN_KEY
"""Sends of datagrams have the number of their buffer in their user data."""

_SELECT_BUFFER: Final = 1 << 13
_SKIP_SUCCESS: Final = 1 << 14
_MULTISHOT: Final = 2 << 16

RECEIVE_ONCE: Final = 27 | _SELECT_BUFFER
RECEIVE: Final = RECEIVE_ONCE | _MULTISHOT
POLL_FIRST: Final = 1 << 16
"""Added to a receive for which nothing is expected to be there yet."""
RECEIVE_MESSAGE: Final = 10 | _SELECT_BUFFER | _MULTISHOT
SEND: Final = 26 | _SKIP_SUCCESS
SEND_MESSAGE: Final = 9 | _SKIP_SUCCESS
CANCEL: Final = 14 | _SKIP_SUCCESS
POLL: Final = 6
TIMEOUT: Final = 11
"""Opcode, flags and priority: how an entry begins. The descriptor follows in the upper half."""

ABSOLUTE_TIME: Final = 1 << 32
_DONTWAIT, _WAITALL, _NOSIGNAL = 0x40, 0x100, 0x4000
STREAM_FLAGS: Final = (_DONTWAIT | _WAITALL | _NOSIGNAL) << 32
"""Of sends that do not wait, and are a failure unless all was sent."""
DATAGRAM_FLAGS: Final = (_DONTWAIT | _NOSIGNAL) << 32
MORE_FOLLOWS: Final = 0x8000 << 32

ENTRY: Final = struct.Struct("=QQQQQQ16x")
"""struct io_uring_sqe: opcode, flags, ioprio and fd; off; addr; len and op flags; user_data; group
of buffers and length of an address. The rest is 0."""


def errno_of(completion: int) -> int:
    """0 for a completion that is none of a failure."""
    result = completion & RESULT
    return (1 << 32) - result if result & FAILED else 0
