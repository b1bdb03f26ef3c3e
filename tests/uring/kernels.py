"""Queues of a real io_uring, whose kernel seems to be older, or short of something."""

from __future__ import annotations

import ctypes
import errno
import os

from uproxy.uring.abi import OP_RECV, OP_RECV_MULTISHOT
from uproxy.uring.queues import Queues

_OPTLEN_SHIFT = 32
"""In the last word of an SQE that is in use, beside the group of buffers."""


class WithoutRing(Queues):
    """Those of a kernel that refuses to set up a ring."""

    def __init__(self) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


class WithoutBuffers(Queues):
    """Those of a kernel that sets up a ring, and refuses to register buffers with it."""

    def register_buf_ring(self, address: int, entries: int, bgid: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


class WithoutRecvLimit(Queues):
    """Those of a kernel before Linux 6.17, which completes a receive with a limit by EINVAL.

    So does a newer kernel if the receive is not multishot, which is what these queues make of it.
    """

    def enter(self, to_submit: int, *, get_events: bool) -> int:
        self._spoil(to_submit)
        return super().enter(to_submit, get_events=get_events)

    def enter_and_wait(self, to_submit: int) -> int:
        self._spoil(to_submit)
        return super().enter_and_wait(to_submit)

    def _spoil(self, to_submit: int) -> None:
        tail = self.fields[self.sq_tail_at]
        for number in range(tail - to_submit, tail):
            at = (number & self.sq_mask) * 8
            if self.sqe_words[at + 5] >> _OPTLEN_SHIFT:
                self.sqe_words[at] &= ~(OP_RECV_MULTISHOT ^ OP_RECV)


class Refusing(Queues):
    """Those of a kernel that is short of memory from time to time."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 0
        """How many calls it is going to refuse."""
        self.most = 1 << 30
        """How many SQEs it takes in one call."""

    def enter(self, to_submit: int, *, get_events: bool) -> int:
        if self._refuses():
            return -1
        return super().enter(min(to_submit, self.most), get_events=get_events)

    def enter_and_wait(self, to_submit: int) -> int:
        if self._refuses():
            return -1
        return super().enter_and_wait(min(to_submit, self.most))

    def _refuses(self) -> bool:
        if self.refusals <= 0:
            return False
        self.refusals -= 1
        ctypes.set_errno(errno.EAGAIN)
        return True
