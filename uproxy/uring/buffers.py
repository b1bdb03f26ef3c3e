"""Provided buffers: the kernel chooses one for each message that it receives.

So an idle socket holds no buffer, and a receive need not know which memory it will fill. Buffers
are offered in a ring of their own, a page-aligned array of struct io_uring_buf (16 bytes each) that
the kernel reads from its head and the process writes at its tail (io_uring_register_buf_ring(3)):

    byte  0              8           12         14
          |     addr     |    len    |   bid    |  resv  |   in the first entry, resv is the tail

From the CQE that brings a message until `give_back` a buffer is the process's, and the kernel does
not touch it. If it finds none, a receive fails with ENOBUFS, and a multishot one is over.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable


class BufferRing:
    """A group of `count` buffers (a power of two) of `size` bytes.

    `sending` has the ids of buffers that queued sends read from. `Ring.submit_and_wait` offers them
    again once it is known what each of these sends has left: `mark_submitted` before it looks at
    completions, whose callbacks queue the sends of the next turn, and `give_back_sent` after it.
    """

    def __init__(
        self, register: Callable[[int, int, int], None], *, bgid: int, count: int, size: int
    ) -> None:
        """`register` gets the address of the ring, the count and the bgid. Raises OSError."""
        self.size = size
        self.sending: list[int] = []
        """Always the same list, so that its `append` can be kept: it is called for each send."""
        self._submitted = 0
        """How many of them were queued before the last `mark_submitted`."""
        self._offered = list(range(count))
        """The bids in the ring, by place."""
        self._mask = count - 1
        self._offers = 0
        # By mmap: the ring has to be page-aligned, and memory is not taken before it is used.
        self._memory, self._ring = mmap.mmap(-1, count * size), mmap.mmap(-1, count * 16)
        self.base = address_of(self._memory)
        """Address of the first buffer."""
        self._bytes = memoryview(self._memory)
        self.quads = self._bytes.cast("Q")
        """The contents of all buffers, 8 bytes at a time."""
        self._entries = memoryview(self._ring).cast("Q")
        self._halves = memoryview(self._ring).cast("H")
        for index in range(count):
            struct.pack_into("=QIH", self._ring, index * 16, self.address(index), size, index)
        register(address_of(self._ring), count, bgid)
        self._offer(count)

    def give_back(self, bid: int) -> None:
        """Offer a buffer to the kernel again. Its contents are lost with the next system call."""
        at = self._offers & self._mask
        self._offered[at] = bid
        # The size stays as it is. Written as a whole, the first entry would overwrite the tail.
        self._entries[at << 1] = self.base + bid * self.size
        self._halves[(at << 3) + 6] = bid
        self._offer(1)

    def mark_submitted(self) -> None:
        """All sends that are queued by now have been submitted."""
        self._submitted = len(self.sending)

    def give_back_sent(self) -> None:
        """Offer the buffers of sends that were submitted by the last `mark_submitted`."""
        count = self._submitted
        if not count:
            return
        self._submitted = 0
        bids = self.sending[:count]
        del self.sending[:count]
        # The kernel takes buffers in the order of the ring, and answers usually leave in the order
        # of the messages. Then these places hold the right bids already, and it is enough to move
        # the tail: part of the 10 % of CPU that decision 0007 notes for UDP.
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
        """Bytes in a buffer. They are valid until it is given back and the kernel is called."""
        at = bid * self.size
        return self._bytes[at + begin : at + end]

    def _offer(self, count: int) -> None:
        # After the entries, as the kernel trusts all that lies before the tail. That needs no
        # memory barrier: the kernel looks only while this thread calls it (queues.py).
        self._offers += count
        self._halves[7] = self._offers & 0xFFFF

    def close(self) -> None:
        """Release the memory. The ring has to be closed before: until then the kernel may write."""
        for view in (self.quads, self._bytes, self._entries, self._halves):
            view.release()
        self._memory.close()
        self._ring.close()


def address_of(memory: bytearray | mmap.mmap) -> int:
    """The address, for a pointer in an SQE, valid while the object lives and is not resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
