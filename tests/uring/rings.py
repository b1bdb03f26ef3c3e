"""What tests of a ring have in common."""

from __future__ import annotations

from uproxy.uring.abi import OP_RECV_MULTISHOT
from uproxy.uring.ring import Ring


def receive_all(ring: Ring, fd: int, user_data: int) -> None:
    """Receive without the limit that streams have, which older kernels do not know."""
    ring.queue_sqe(OP_RECV_MULTISHOT | fd << 32, 0, 0, 0, user_data)
