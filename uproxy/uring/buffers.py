"""BufferRing that an io_uring fills with what it receives."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable


class BufferRing:
    """A group of `count` buffers (a power of two) of `size` bytes.

    The kernel takes those that it is offered in a ring of its own (io_uring_register_buf_ring(3)),
    and names them by number.
    """

    def __init__(
        self, register: Callable[[int, int, int], None], *, bgid: int, count: int, size: int
    ) -> None:
        """`register` tells the kernel the address of the ring, the count and the group."""
        self.size = size
        self.sending: list[int] = []
        """Those of sends that were queued; always the same list."""
        self._submitted = 0
        """How many of them are of sends that are decided."""
        self._offered = list(range(count))
        """What the kernel's ring has in each of its places."""
        self._mask = count - 1
        self._offers = 0
        self._memory, self._ring = mmap.mmap(-1, count * size), mmap.mmap(-1, count * 16)
        self.base = address_of(self._memory)
        """Address of the first."""
        self._bytes = memoryview(self._memory)
        self.quads = self._bytes.cast("Q")
        """Their contents, 8 bytes at a time."""
        self._entries = memoryview(self._ring).cast("Q")
        self._halves = memoryview(self._ring).cast("H")
        for index in range(count):
            struct.pack_into("=QIH", self._ring, index * 16, self.address(index), size, index)
        register(address_of(self._ring), count, bgid)
        self._offer(count)

    def give_back(self, bid: int) -> None:
        """A buffer can be used again."""
        at = self._offers & self._mask
        self._offered[at] = bid
        self._entries[at << 1] = self.base + bid * self.size
        self._halves[(at << 3) + 6] = bid
        self._offer(1)

    def mark_submitted(self) -> None:
        """The sends that were queued so far are submitted, and so decided."""
        self._submitted = len(self.sending)

    def give_back_sent(self) -> None:
        """The buffers of sends that are decided can be used again."""
        count = self._submitted
        if not count:
            return
        self._submitted = 0
        bids = self.sending[:count]
        del self.sending[:count]
        # The kernel takes buffers in the order of its ring, and they usually come back in the same:
        # then what the ring has in these places is right already.
        at = self._offers & self._mask
        if self._offered[at : at + count] == bids:
            self._offer(count)
        else:
            for bid in bids:
                self.give_back(bid)

    def address(self, bid: int) -> int:
        """Where a buffer begins."""
        return self.base + bid * self.size

    def view(self, bid: int, begin: int, end: int) -> memoryview:
        """Bytes in a buffer; valid until the kernel is called."""
        at = bid * self.size
        return self._bytes[at + begin : at + end]

    def _offer(self, count: int) -> None:
        self._offers += count
        self._halves[7] = self._offers & 0xFFFF  # The tail lies in the first entry's padding.

    def close(self) -> None:
        for view in (self.quads, self._bytes, self._entries, self._halves):
            view.release()
        self._memory.close()
        self._ring.close()


def address_of(memory: bytearray | mmap.mmap) -> int:
    """Where it is, and stays while it is not resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
