"""A direction of a flow whose bytes go from socket to socket without passing through Python."""

from __future__ import annotations

import errno
import struct
import sys
from _socket import SOL_SOCKET
from _socket import socket as Socket
from typing import Final

from uproxy.dataplane.tcp.pipes import CAPACITY, Pipe
from uproxy.dataplane.tcp.shared_buffers import SharedBuffers

HELD: Final = 64 * 1024
"""Bytes that may be left in the pipe of a direction whose receiver is slow."""

SMALL: Final = 64 * 1024
"""Bytes. To copy fewer costs no more than to splice them, in two system calls as well."""

SMALL_IN_A_ROW: Final = 3
"""Small splices in a row after which the direction copies again."""

_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What kernels say that cannot splice from sockets: gVisor, and some security modules."""

_SO_MEMINFO: Final = 55
_MEMORY: Final = struct.Struct("=12xI4xI")
"""Two of its nine numbers: SK_MEMINFO_SNDBUF, the size of the send buffer, and
SK_MEMINFO_WMEM_QUEUED, how much of it is taken."""


class Splice:
    """Borrows a pipe while bytes are on their way: idle directions have none."""

    __slots__ = (
        "_getsockopt",
        "_growing",
        "_pipe",
        "_pipes",
        "_shared",
        "_small",
        "_source",
        "_target",
    )

    def __init__(self, shared: SharedBuffers, source: Socket, target: Socket) -> None:
        self._shared = shared
        self._pipes = pipes = shared.pipes
        self._source = source.fileno()
        self._target = target.fileno()
        self._getsockopt = target.getsockopt
        self._pipe: Pipe | None = None
        self._growing = HELD
        """Bytes of the next pipe for a target that had sent all it had when the last one came."""
        self._small = 0
        # Sockets are accepted in blocking mode, as recv and send have MSG_DONTWAIT. splice(2) has
        # no such flag for a socket, and would stop the whole worker.
        pipes.kernel.set_blocking(self._source, False)
        pipes.kernel.set_blocking(self._target, False)

    @property
    def pending(self) -> int:
        """Bytes in the pipe."""
        return self._pipe.size if self._pipe is not None else 0

    @property
    def small(self) -> bool:
        """Whether so little is moved at a time that copying costs less."""
        return self._small >= SMALL_IN_A_ROW

    def fill(self) -> int | None:
        """Take bytes from the source, once all previous ones are drained. Returns 0 at the end of
        the stream, and None if bytes have to be copied because there is no pipe or no splice.
        Raises BlockingIOError when there are no bytes, and OSError."""
        if self._pipe is None:
            self._pipe = self._pipes.borrow()
            if self._pipe is None:
                return None
        try:
            count = self._pipe.fill(self._source, self._room())
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._shared.splice_after = sys.maxsize  # For all directions of this worker.
            return None
        self._small = self._small + 1 if count < SMALL else 0
        return count

    def drain(self) -> None:
        """Give the target all there is. Raises BlockingIOError when it is full, and OSError."""
        if self._pipe is not None:
            try:
                self._pipe.drain(self._target)
            except BlockingIOError:
                self._growing = HELD
                raise

    def take_out(self) -> bytes:
        """What is in the pipe, which is empty then. The pipe does not leave this process, and its
        bytes go on without it (pipe-forgotten)."""
        return self._pipe.take_out() if self._pipe is not None else b""

    def release_empty_pipe(self) -> None:
        """Give the pipe back, unless it holds bytes."""
        if not self.pending:
            self.close()

    def close(self) -> None:
        """Give the pipe back, whatever it holds; the pool does not lend it again if it does."""
        if self._pipe is not None:
            self._pipes.give_back(self._pipe)
            self._pipe = None

    def _room(self) -> int:
        """Bytes that the target is likely to take, so that the pipe does not keep them; HELD at
        least.

        A send buffer is charged for packets, not only for their bytes: their overhead is a
        twentieth of the bytes, or five times as much if the window of the receiver is tiny. What
        waits already shows the ratio; a quarter of the room is left for variation.
        """
        try:
            size, taken = _MEMORY.unpack(self._getsockopt(SOL_SOCKET, _SO_MEMINFO, _MEMORY.size))
            waiting = self._pipes.kernel.unsent(self._target)
        except OSError:
            return HELD
        room: int = (size - taken) * 3 // 4
        if waiting and taken:
            room = room * waiting // taken
        else:
            room = min(room, self._growing)
            self._growing = min(2 * self._growing, CAPACITY)
        return max(room, HELD)
