"""What io_uring(7) looks like in memory, on little-endian machines.

Values are those of include/uapi/linux/io_uring.h, and so are the names, without their IORING_. But
a constant here is shifted to where it lies in one of the 8-byte words below, so that a word is put
together with `|` alone, and tested with a single `&`.

An SQE is 64 bytes. Words 1 to 3 mean different things to different operations. On the right are
the names of the arguments that become a word.

           63              48 47              32 31              16 15              0
          +------------------+------------------+------------------+--------+--------+
     0    | fd                                  | ioprio           | flags  | opcode |   head
     1    | off: the address to send to, or 0 for a connected socket                 |   offset
     2    | addr: of bytes, a msghdr or a timespec; the user_data to cancel          |   address
     3    | MSG_*, events of a poll, TIMEOUT_*  | len                                |   length
     4    | user_data                                                                |   user_data
     5    | optlen of a recv, addr_len          | personality      | buf_group: bgid |   rest
     6, 7 | 0                                                                        |
          +--------------------------------------------------------------------------+

The user_data is the number of a callback, with marks. That of a send is never found among the
callbacks. So a usual completion costs one lookup, and only when nothing was found is it taken for a
send that has failed, which is rare (`Ring._owner`).

           63 62 61  60 59                    44 43                                 0
          +--+--+------+------------------------+------------------------------------+
          |I |S |  0   | bid                    | owner: even for bgid 0, odd for 1  |
          +--+--+------+------------------------+------------------------------------+
     I     USER_DATA_IGNORED: there is no callback
     S     USER_DATA_SEND; the bid is that of the buffer that a datagram is sent from

A CQE is 16 bytes: the user_data, and a word that is passed to callbacks as it is, the "completion".

           63              48 47              32 31                                 0
          +------------------+------------------+------------------------------------+
          | bid              | flags            | res                                |
          +------------------+------------------+------------------------------------+
     31    CQE_RES_ERROR: res is a negated errno. Otherwise it is the number of bytes that were
           received or sent, or the events of a poll
     32    CQE_F_BUFFER: there is a bid, and the message is in that buffer
     33    CQE_F_MORE: the operation is multishot, and goes on
     46    SEND_INCOMPLETE: set by `Ring`, for a send that has failed or is incomplete. The kernel
           uses bits 32 to 37 and 47 (Linux 6.18)

It is packed because of what Python costs: a callback takes one int, which memoryview.tolist() has
made already. A tuple or an object with its parts would have to be made for every message, and most
callbacks look at no more than two of them.
"""

from __future__ import annotations

import struct
from typing import Final

U32: Final = 0xFFFF_FFFF
"""Heads and tails of queues have 32 bits, and wrap around."""

CQE_RES: Final = 0xFFFF_FFFF
CQE_RES_ERROR: Final = 0x8000_0000
CQE_F_BUFFER: Final = 1 << 32
CQE_F_MORE: Final = 2 << 32
SEND_INCOMPLETE: Final = 1 << 46
CQE_BUFFER_SHIFT: Final = 48

SQ_CQ_OVERFLOW: Final = 1 << 1
"""A flag of the SQ: the kernel holds completions for which the CQ had no room."""
SQ_TASKRUN: Final = 1 << 2
"""A flag of the SQ: there is task work to be done."""

USER_DATA_SEND: Final = 1 << 62
USER_DATA_IGNORED: Final = 1 << 63
USER_DATA_OWNER: Final = (1 << 44) - 1
USER_DATA_BID_SHIFT: Final = 44
USER_DATA_BID: Final = 0xFFFF << USER_DATA_BID_SHIFT
USER_DATA_BID_TO_CQE: Final = CQE_BUFFER_SHIFT - USER_DATA_BID_SHIFT
"""How far the bid of a failed send is shifted, to lie where completions have it."""

_BUFFER_SELECT: Final = 1 << 13
_CQE_SKIP_SUCCESS: Final = 1 << 14
_RECV_MULTISHOT: Final = 2 << 16

OP_RECV: Final = 27 | _BUFFER_SELECT
OP_RECV_MULTISHOT: Final = OP_RECV | _RECV_MULTISHOT
RECVSEND_POLL_FIRST: Final = 1 << 16
"""Added to a receive from a socket that is expected to be empty: the kernel waits for it at once,
without a try that would fail."""
OP_RECVMSG_MULTISHOT: Final = 10 | _BUFFER_SELECT | _RECV_MULTISHOT
OP_SEND: Final = 26 | _CQE_SKIP_SUCCESS
OP_SENDMSG: Final = 9 | _CQE_SKIP_SUCCESS
OP_ASYNC_CANCEL: Final = 14 | _CQE_SKIP_SUCCESS
OP_POLL_ADD: Final = 6
OP_TIMEOUT: Final = 11
"""The beginning of a head: opcode, flags and ioprio."""

TIMEOUT_ABS: Final = 1 << 32
_MSG_DONTWAIT, _MSG_WAITALL, _MSG_NOSIGNAL = 0x40, 0x100, 0x4000
STREAM_SEND_FLAGS: Final = _MSG_DONTWAIT | _MSG_WAITALL | _MSG_NOSIGNAL
"""With MSG_DONTWAIT a send to a full socket fails with EAGAIN in place of waiting in the kernel.
With MSG_WAITALL one of which only a part was taken counts as failed, too: its CQE is not skipped,
and its result is the number of bytes that were taken. Not shifted, as SEND_SQE has these flags by
themselves."""
DATAGRAM_SEND_FLAGS: Final = (_MSG_DONTWAIT | _MSG_NOSIGNAL) << 32
"""A datagram is taken as a whole or not at all, so MSG_WAITALL has nothing to say."""
MSG_MORE: Final = 0x8000 << 32

SQE: Final = struct.Struct("=QQQQQQ16x")
"""struct io_uring_sqe. Packing writes the padding, too, so nothing stays of an earlier
operation."""

SEND_SQE: Final = struct.Struct("=Ii8xQIIQ24x")
"""The same for a send to a stream: head, fd, address, len, MSG_*, user_data. Halves of a word are
packed by themselves, so Python need not join them."""
RECV_SQE: Final = struct.Struct("=Ii24xQII16x")
"""The same for a receive: head, fd, user_data, bgid, optlen."""


def errno_of(completion: int) -> int:
    """The errno of a failure, and 0 of a success."""
    result = completion & CQE_RES
    return (1 << 32) - result if result & CQE_RES_ERROR else 0
