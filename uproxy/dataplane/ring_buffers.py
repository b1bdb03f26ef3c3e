"""Buffers that an io_uring fills with what it receives."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable


class Buffers:
    """A group of `count` buffers (a power of two) of `size` bytes.

    The kernel takes those that it is offered in a ring of its own (io_uring_register_buf_ring(3)),
    and names them by number.
    """

    def __init__(
        self, register: Callable[[int, int, int], None], *, group: int, count: int, size: int
    ) -> None:
        """`register` tells the kernel the address of the ring, the count and the group."""
        self.size = size
        self.used: list[int] = []
        """Those of sends that were queued."""
        self._mask = count - 1
        self._offers = 0
        self._memory, self._ring = mmap.mmap(-1, count * size), mmap.mmap(-1, count * 16)
        self.base = address_of(self._memory)
        """Address of the first."""
        self._bytes = memoryview(self._memory)
        self._quads = memoryview(self._ring).cast("Q")
        self._halves = memoryview(self._ring).cast("H")
        for index in range(count):
            struct.pack_into("=QIH", self._ring, index * 16, 0, size, 0)
        register(address_of(self._ring), count, group)
        for buffer in range(count):
            self.free(buffer)

    def free(self, buffer: int) -> None:
        """A buffer can be used again."""
        at = self._offers & self._mask
        self._quads[at << 1] = self.base + buffer * self.size
        self._halves[(at << 3) + 6] = buffer
        self._offers += 1
        self._halves[7] = self._offers & 0xFFFF  # The tail lies in the first entry's padding.

    def take_used(self) -> list[int]:
        """Those of sends that were queued, once."""
        used, self.used = self.used, []
        return used

    def address(self, buffer: int) -> int:
        """Where a buffer begins."""
        return self.base + buffer * self.size

    def view(self, buffer: int, begin: int, end: int) -> memoryview:
        """Bytes in a buffer; valid until the kernel is called."""
        at = buffer * self.size
        return self._bytes[at + begin : at + end]

    def close(self) -> None:
        for view in (self._bytes, self._quads, self._halves):
            view.release()
        self._memory.close()
        self._ring.close()


def address_of(memory: bytearray | mmap.mmap) -> int:
    """Where it is, and stays while it is not resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
