"""What io_uring(7) looks like in memory, on little-endian machines.

Numbers are those of include/uapi/linux/io_uring.h, and so are the names, less their IORING_.
"""

from __future__ import annotations

import struct
from typing import Final

CQE_RES: Final = 0xFFFF_FFFF
"""The lower half of a completion. Above it are the kernel's flags, and the id of a buffer."""
CQE_RES_ERROR: Final = 0x8000_0000
"""Set in a result that is an errno, negated."""
CQE_F_BUFFER: Final = 1 << 32
CQE_F_MORE: Final = 2 << 32
"""Set while a multishot operation goes on."""
SEND_INCOMPLETE: Final = 1 << 46
"""Set by us for a send that the kernel has not carried out completely."""
CQE_BUFFER_SHIFT: Final = 48

SQ_CQ_OVERFLOW: Final = 1 << 1
"""In the flags of the submission queue: there are more completions than fit into their queue."""
SQ_TASKRUN: Final = 1 << 2
"""In the same place: the kernel has put something off until it is called."""

USER_DATA_SEND: Final = 1 << 62
"""Set in the user data of sends, which complete only when something is left."""
USER_DATA_IGNORED: Final = 1 << 63
"""User data of operations whose completion nobody waits for."""
USER_DATA_OWNER: Final = (1 << 44) - 1
USER_DATA_BID_SHIFT: Final = 44
USER_DATA_BID: Final = 0xFFFF << USER_DATA_BID_SHIFT
USER_DATA_BID_TO_CQE: Final = CQE_BUFFER_SHIFT - USER_DATA_BID_SHIFT
"""Sends of datagrams have the id of their buffer in their user data."""

_BUFFER_SELECT: Final = 1 << 13
_CQE_SKIP_SUCCESS: Final = 1 << 14
_RECV_MULTISHOT: Final = 2 << 16

OP_RECV: Final = 27 | _BUFFER_SELECT
OP_RECV_MULTISHOT: Final = OP_RECV | _RECV_MULTISHOT
RECVSEND_POLL_FIRST: Final = 1 << 16
"""Added to a receive for which nothing is expected to be there yet."""
OP_RECVMSG_MULTISHOT: Final = 10 | _BUFFER_SELECT | _RECV_MULTISHOT
OP_SEND: Final = 26 | _CQE_SKIP_SUCCESS
OP_SENDMSG: Final = 9 | _CQE_SKIP_SUCCESS
OP_ASYNC_CANCEL: Final = 14 | _CQE_SKIP_SUCCESS
OP_POLL_ADD: Final = 6
OP_TIMEOUT: Final = 11
"""Opcode, flags and priority: how an entry begins. The descriptor follows in the upper half."""

TIMEOUT_ABS: Final = 1 << 32
_MSG_DONTWAIT, _MSG_WAITALL, _MSG_NOSIGNAL = 0x40, 0x100, 0x4000
STREAM_SEND_FLAGS: Final = (_MSG_DONTWAIT | _MSG_WAITALL | _MSG_NOSIGNAL) << 32
"""Of sends that do not wait, and are a failure unless all was sent."""
DATAGRAM_SEND_FLAGS: Final = (_MSG_DONTWAIT | _MSG_NOSIGNAL) << 32
MSG_MORE: Final = 0x8000 << 32

SQE: Final = struct.Struct("=QQQQQQ16x")
"""struct io_uring_sqe: opcode, flags, ioprio and fd; off; addr; len and op flags; user_data; group
of buffers and length of an address. The rest is 0."""


def errno_of(completion: int) -> int:
    """0 for a completion that is none of a failure."""
    result = completion & CQE_RES
    return (1 << 32) - result if result & CQE_RES_ERROR else 0
