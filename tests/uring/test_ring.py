"""The ring itself: what its callers rely on."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest

from tests.dataplane.conftest import receive_all
from tests.io_uring import needs_io_uring
from uproxy.uring.abi import BUFFER_SHIFT, HAS_BUFFER, IGNORED, UNSENT, errno_of
from uproxy.uring.queues import Queues
from uproxy.uring.ring import BUFFERS, Ring, send_entry

pytestmark = needs_io_uring


class TestRing:
    def test_what_a_full_socket_leaves_is_told_in_the_next_turn(self) -> None:
        ring = Ring()
        near, far = socket.socketpair()
        source, sink = socket.socketpair()
        told: list[int] = []
        try:
            self.fill(far)

            def arrived(completion: int) -> None:
                if completion & UNSENT:
                    told.append(errno_of(completion))
                else:
                    ring.send(send_entry(far.fileno(), key), completion >> BUFFER_SHIFT, 5)

            key = ring.add(arrived)
            receive_all(ring, source.fileno(), key)
            sink.send(b"hello")
            ring.turn(wait=True)
            ring.turn(wait=False)
            assert told == [errno.EAGAIN]
        finally:
            ring.close()
            for each in (near, far, source, sink):
                each.close()

    def fill(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            while True:
                sock.send(b"x" * 4096)
        except BlockingIOError:
            pass

    def test_only_a_send_that_is_still_queued_waits_for_more(self) -> None:
        """What takes the place of one that was submitted is somebody else's."""
        ring = Ring()
        other, sink = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        near, far = socket.socketpair()
        try:
            sink.bind(("127.0.0.1", 0))
            other.connect(sink.getsockname())
            sink.setblocking(False)
            mine, others = (send_entry(each.fileno(), IGNORED) for each in (near, other))
            number = ring.send(mine, 0, 5)
            ring.flush()
            for _ in range(ring._mask):
                ring.cancel(1)
            ring.flush()
            assert (ring.send(others, 1, 5) - number) & ring._mask == 0
            ring.more_follows(number)
            ring.flush()
            assert len(sink.recv(100)) == 5  # One that waits for more does not leave.
            ring.more_follows(ring.send(others, 1, 5))
            ring.flush()
            with pytest.raises(BlockingIOError):
                sink.recv(100)
        finally:
            ring.close()
            for each in (near, far, other, sink):
                each.close()

    def test_a_callback_that_fails_does_not_stop_the_others(self) -> None:
        ring = Ring()
        failures: list[str] = []
        ring.failed = lambda _, error: failures.append(str(error))
        near, far = socket.socketpair()
        called: list[int] = []
        try:
            far.send(b"x")

            def bad(completion: int) -> None:
                raise RuntimeError("bad")

            ring.poll(near.fileno(), 1, bad)
            ring.poll(near.fileno(), 1, called.append)
            ring.turn(wait=True)
            assert failures == ["bad"]
            assert called == [1]
        finally:
            ring.close()
            near.close()
            far.close()

    def test_who_fails_when_told_of_a_failed_send_is_known(self) -> None:
        """So that it can be ended: what it has not heard it will never make up for."""
        ring = Ring()
        failures: list[object] = []
        ring.failed = lambda callback, _: failures.append(callback)
        near, far = socket.socketpair()

        def bad(completion: int) -> None:
            raise RuntimeError("bad")

        try:
            self.fill(near)
            ring.send(send_entry(near.fileno(), ring.add(bad)), 0, 5)
            ring.turn(wait=False)
            assert failures == [bad]
        finally:
            ring.close()
            near.close()
            far.close()

    def test_more_receivers_than_buffers(self) -> None:
        """Nobody's bytes are lost: who finds no buffer is told, and asks again."""
        ring = Ring()
        near, far = socket.socketpair()
        count = 0
        refused: list[int] = []
        kept: list[int] = []

        def arrived(completion: int) -> None:
            nonlocal count
            if completion & HAS_BUFFER:
                count += 1
                kept.append(completion >> BUFFER_SHIFT)
            else:
                refused.append(errno_of(completion))

        key = ring.add(arrived)
        try:
            far.setblocking(False)
            receive_all(ring, near.fileno(), key)
            for _ in range(BUFFERS):
                far.send(b"x")
                ring.turn(wait=False)
            far.send(b"y")
            ring.turn(wait=False)
            assert (count, refused) == (BUFFERS, [errno.ENOBUFS])
            ring.buffers.free(kept[0])
            receive_all(ring, near.fileno(), key)
            ring.turn(wait=False)
            assert count == BUFFERS + 1
        finally:
            ring.close()
            near.close()
            far.close()


class WithoutBuffers(Queues):
    """Those of a kernel that sets up a ring, and registers nothing with it."""

    def register(self, address: int, count: int, group: int) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_ring_that_cannot_be_used_is_given_back() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionError):
        Ring(WithoutBuffers)
    assert os.listdir("/proc/self/fd") == before


class Refusing(Queues):
    """Those of a kernel that is short of memory from time to time."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 0
        """How many calls it is going to refuse."""
        self.most = 1 << 30
        """How many entries it takes in one call."""

    def enter(self, queued: int, *, events: bool) -> int:
        return -1 if self._refuses() else super().enter(min(queued, self.most), events=events)

    def wait(self, queued: int) -> int:
        return -1 if self._refuses() else super().wait(min(queued, self.most))

    def _refuses(self) -> bool:
        if self.refusals <= 0:
            return False
        self.refusals -= 1
        ctypes.set_errno(errno.EAGAIN)
        return True


class Refused:
    """A ring over such queues."""

    def __init__(self) -> None:
        self.queues = Refusing()
        self.ring = Ring(lambda: self.queues)
        self.pauses = 0
        self.ring.pause = self._pause

    def _pause(self) -> None:
        self.pauses += 1


@pytest.fixture
def refused() -> Iterator[Refused]:
    made = Refused()
    yield made
    made.ring.close()


class TestRefusals:
    """A kernel that takes nothing for a moment."""

    def test_nothing_that_is_queued_is_overwritten(self, refused: Refused) -> None:
        ring, called = refused.ring, 0

        def arrived(completion: int) -> None:
            nonlocal called
            called += 1

        near, far = socket.socketpair()
        with near, far:
            refused.queues.most = 100
            for _ in range(3000):
                if not refused.queues.refusals:
                    refused.queues.refusals = 3
                ring.poll(near.fileno(), select.POLLOUT, arrived)
            for _ in range(5):
                ring.turn(wait=False)
        assert called == 3000
        assert refused.pauses

    def test_a_flush_is_over_when_all_is_submitted(self, refused: Refused) -> None:
        """Else what is closed behind it may be another's when its number is looked up."""
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            refused.ring.send(send_entry(near.fileno(), IGNORED), 0, 5)
            refused.queues.refusals = 3
            refused.ring.flush()
            assert len(far.recv(100)) == 5

    def test_what_was_cancelled_is_let_go(self, refused: Refused) -> None:
        near, far = socket.socketpair()
        with far:
            far.setblocking(False)
            receive_all(refused.ring, near.fileno(), key := refused.ring.add(print))
            refused.ring.flush()
            refused.ring.remove(key)
            refused.ring.cancel(key)
            refused.queues.refusals = 3
            refused.ring.finish_cancelled()
            near.close()
            assert far.recv(100) == b""

    def test_a_turn_decides_all_sends(self, refused: Refused) -> None:
        """Buffers are given back behind it."""
        ring = refused.ring
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            for _ in range(3):
                ring.send(send_entry(near.fileno(), IGNORED), 0, 5)
            refused.queues.refusals, refused.queues.most = 3, 2
            ring.turn(wait=True)
            assert len(far.recv(100)) == 15

    def test_a_kernel_that_goes_on_refusing_ends_the_loop(self, refused: Refused) -> None:
        """Whatever those who wait for the ring catch: its owner is told in the next turn."""
        ring = refused.ring
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            for _ in range(len(refused.queues.entries) // 64):
                ring.send(send_entry(near.fileno(), IGNORED), 0, 1)
            refused.queues.refusals = 1 << 30
            for operation in (ring.flush, lambda: ring.cancel(1), lambda: ring.turn(wait=True)):
                with pytest.raises(OSError, match="keeps refusing what is queued"):
                    operation()
            refused.queues.refusals = 0
            with pytest.raises(OSError, match="keeps refusing what is queued"):
                ring.turn(wait=True)
            with pytest.raises(BlockingIOError):
                far.recv(1)

    def test_more_completions_than_room_belong_to_the_same_turn(self, refused: Refused) -> None:
        ring, called = refused.ring, 0

        def arrived(completion: int) -> None:
            nonlocal called
            called += 1

        near, far = socket.socketpair()
        with near, far:
            count = 2 * len(refused.queues.completions) + 100
            for _ in range(count):
                ring.poll(near.fileno(), select.POLLOUT, arrived)
            ring.turn(wait=False)
        assert called == count
