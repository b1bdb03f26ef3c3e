"""Pipes for splice(2), which moves bytes between two sockets without copying them to Python."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from uproxy.dataplane.kernel import LINUX, Kernel

CAPACITY: Final = 1024 * 1024
"""Bytes per pipe that we ask for: the most an unprivileged process gets by default
(fs.pipe-max-size)."""

SMALLEST: Final = 64 * 1024
"""Bytes below which a pipe is not worth its system calls. Once a user's pipes hold 64 MiB
(fs.pipe-user-pages-soft), new ones get a page or two."""

MOST: Final = 256
"""Pipes of one worker at a time, unless it has few descriptors. Only directions whose reader is
slow keep one, with two descriptors and up to its capacity of kernel memory; beyond this number
bytes are copied."""

KEPT: Final = 32
"""Unused pipes that are kept. Creating one and setting its size costs about 10 us."""


_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """What a direction of a flow borrows while it splices.

    SPLICE_F_NONBLOCK is about the pipe only; for the socket its own O_NONBLOCK decides (splice(2)).
    """

    __slots__ = ("_capacity", "_kernel", "_reader", "_splice", "_writer", "size")

    def __init__(self, kernel: Kernel) -> None:
        """Raises OSError when there are no descriptors or only useless pipes left."""
        self.size = 0
        """Bytes in the pipe."""
        self._kernel = kernel
        self._splice = kernel.splice
        self._reader, self._writer = kernel.pipe()
        try:
            self._capacity = self._grown()
        except BaseException:
            self.close()
            raise

    def _grown(self) -> int:
        with suppress(OSError):  # Over the user's limit: what it has now must do.
            self._kernel.resize_pipe(self._writer, CAPACITY)
        capacity = self._kernel.size_of_pipe(self._writer)
        if capacity < SMALLEST:
            raise OSError(f"the kernel grants only pipes of {capacity} bytes")
        return capacity

    def fill(self, fd: int, most: int = CAPACITY) -> int:
        """Take what a socket has into the pipe, which must be empty; 0 at the end of its stream.

        Less than what is there may fit, as small packets occupy whole pages: only BlockingIOError
        says that the socket is empty. Raises OSError.
        """
        count = self._splice(fd, self._writer, min(most, self._capacity), flags=_FLAGS)
        self.size += count
        return count

    def drain(self, fd: int) -> None:
        """Move all there is to a socket. Raises BlockingIOError when that is full, and OSError."""
        while self.size:
            moved = self._splice(self._reader, fd, self.size, flags=_FLAGS)
            # It cannot be 0 while the other end is open (splice(2)); if it was, this would not end.
            if not moved:
                raise OSError("a pipe that should hold bytes is empty")
            self.size -= moved

    def take_out(self) -> bytes:
        """Read all there is, for a mover that may have no pipe, or be in another process."""
        content = bytearray()
        while self.size:
            part = self._kernel.read(self._reader, self.size)
            if not part:
                raise OSError("a pipe that should hold bytes is empty")
            content += part
            self.size -= len(part)
        return bytes(content)

    def close(self) -> None:
        self._kernel.close(self._reader)
        self._kernel.close(self._writer)


class PipePool:
    """All pipes of a worker."""

    def __init__(self, kernel: Kernel = LINUX) -> None:
        self.kernel = kernel
        self.most = MOST
        """Beyond this number bytes are copied."""
        self.used = 0
        """Pipes that directions have borrowed and not given back."""
        self._unused: list[Pipe] = []

    def borrow(self) -> Pipe | None:
        """An empty pipe, or None: then the bytes have to be copied."""
        # Not compared with `most`: a pipe is made only when none is unused, so there are no more
        # than that in all.
        if self._unused:
            self.used += 1
            return self._unused.pop()
        if self.used >= self.most:
            return None
        try:
            pipe = Pipe(self.kernel)
        except OSError:
            return None
        self.used += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Take a pipe back. One that still has bytes of some flow must never carry another's
        (pipe-with-a-rest)."""
        self.used -= 1
        if not pipe.size and len(self._unused) < KEPT:
            self._unused.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close the unused pipes; call it when all are back."""
        while self._unused:
            self._unused.pop().close()
