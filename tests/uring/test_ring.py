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
from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    SEND_INCOMPLETE,
    USER_DATA_IGNORED,
    errno_of,
)
from uproxy.uring.queues import Queues
from uproxy.uring.ring import BUFFER_COUNT, Ring
from uproxy.uring.submission_queue import send_sqe

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
                if completion & SEND_INCOMPLETE:
                    told.append(errno_of(completion))
                else:
                    ring.send(send_sqe(far.fileno(), user_data), completion >> CQE_BUFFER_SHIFT, 5)

            user_data = ring.add_callback(arrived)
            receive_all(ring, source.fileno(), user_data)
            sink.send(b"hello")
            ring.submit_and_wait(1)
            ring.submit_and_wait(0)
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
            mine, others = (send_sqe(each.fileno(), USER_DATA_IGNORED) for each in (near, other))
            number = ring.send(mine, 0, 5)
            ring.submit()
            for _ in range(ring._sq_mask):
                ring.cancel(1)
            ring.submit()
            assert (ring.send(others, 1, 5) - number) & ring._sq_mask == 0
            ring.set_msg_more(number)
            ring.submit()
            assert len(sink.recv(100)) == 5  # One that waits for more does not leave.
            ring.set_msg_more(ring.send(others, 1, 5))
            ring.submit()
            with pytest.raises(BlockingIOError):
                sink.recv(100)
        finally:
            ring.close()
            for each in (near, far, other, sink):
                each.close()

    def test_a_callback_that_fails_does_not_stop_the_others(self) -> None:
        ring = Ring()
        failures: list[str] = []
        ring.on_error = lambda _, error: failures.append(str(error))
        near, far = socket.socketpair()
        called: list[int] = []
        try:
            far.send(b"x")

            def bad(completion: int) -> None:
                raise RuntimeError("bad")

            ring.poll_add(near.fileno(), 1, bad)
            ring.poll_add(near.fileno(), 1, called.append)
            ring.submit_and_wait(1)
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
        ring.on_error = lambda callback, _: failures.append(callback)
        near, far = socket.socketpair()

        def bad(completion: int) -> None:
            raise RuntimeError("bad")

        try:
            self.fill(near)
            ring.send(send_sqe(near.fileno(), ring.add_callback(bad)), 0, 5)
            ring.submit_and_wait(0)
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
            if completion & CQE_F_BUFFER:
                count += 1
                kept.append(completion >> CQE_BUFFER_SHIFT)
            else:
                refused.append(errno_of(completion))

        user_data = ring.add_callback(arrived)
        try:
            far.setblocking(False)
            receive_all(ring, near.fileno(), user_data)
            for _ in range(BUFFER_COUNT):
                far.send(b"x")
                ring.submit_and_wait(0)
            far.send(b"y")
            ring.submit_and_wait(0)
            assert (count, refused) == (BUFFER_COUNT, [errno.ENOBUFS])
            ring.buffers.give_back(kept[0])
            receive_all(ring, near.fileno(), user_data)
            ring.submit_and_wait(0)
            assert count == BUFFER_COUNT + 1
        finally:
            ring.close()
            near.close()
            far.close()


class WithoutBuffers(Queues):
    """Those of a kernel that sets up a ring, and registers nothing with it."""

    def register_buf_ring(self, address: int, entries: int, bgid: int) -> None:
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

    def enter(self, to_submit: int, *, get_events: bool) -> int:
        return (
            -1
            if self._refuses()
            else super().enter(min(to_submit, self.most), get_events=get_events)
        )

    def enter_and_wait(self, to_submit: int) -> int:
        return -1 if self._refuses() else super().enter_and_wait(min(to_submit, self.most))

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
                ring.poll_add(near.fileno(), select.POLLOUT, arrived)
            for _ in range(5):
                ring.submit_and_wait(0)
        assert called == 3000
        assert refused.pauses

    def test_a_submit_is_over_when_all_is_submitted(self, refused: Refused) -> None:
        """Else what is closed behind it may be another's when its number is looked up."""
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            refused.ring.send(send_sqe(near.fileno(), USER_DATA_IGNORED), 0, 5)
            refused.queues.refusals = 3
            refused.ring.submit()
            assert len(far.recv(100)) == 5

    def test_what_was_cancelled_is_let_go(self, refused: Refused) -> None:
        near, far = socket.socketpair()
        with far:
            far.setblocking(False)
            receive_all(refused.ring, near.fileno(), user_data := refused.ring.add_callback(print))
            refused.ring.submit()
            refused.ring.remove_callback(user_data)
            refused.ring.cancel(user_data)
            refused.queues.refusals = 3
            refused.ring.submit_and_get_events()
            near.close()
            assert far.recv(100) == b""

    def test_a_turn_decides_all_sends(self, refused: Refused) -> None:
        """Buffers are given back behind it."""
        ring = refused.ring
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            for _ in range(3):
                ring.send(send_sqe(near.fileno(), USER_DATA_IGNORED), 0, 5)
            refused.queues.refusals, refused.queues.most = 3, 2
            ring.submit_and_wait(1)
            assert len(far.recv(100)) == 15

    def test_a_kernel_that_goes_on_refusing_ends_the_loop(self, refused: Refused) -> None:
        """Whatever those who wait for the ring catch: its owner is told in the next turn."""
        ring = refused.ring
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            for _ in range(len(refused.queues.sqes) // 64):
                ring.send(send_sqe(near.fileno(), USER_DATA_IGNORED), 0, 1)
            refused.queues.refusals = 1 << 30
            for operation in (ring.submit, lambda: ring.cancel(1), lambda: ring.submit_and_wait(1)):
                with pytest.raises(OSError, match="keeps refusing what is queued"):
                    operation()
            refused.queues.refusals = 0
            with pytest.raises(OSError, match="keeps refusing what is queued"):
                ring.submit_and_wait(1)
            with pytest.raises(BlockingIOError):
                far.recv(1)

    def test_more_completions_than_room_belong_to_the_same_turn(self, refused: Refused) -> None:
        ring, called = refused.ring, 0

        def arrived(completion: int) -> None:
            nonlocal called
            called += 1

        near, far = socket.socketpair()
        with near, far:
            count = 2 * len(refused.queues.cqes) + 100
            for _ in range(count):
                ring.poll_add(near.fileno(), select.POLLOUT, arrived)
            ring.submit_and_wait(0)
        assert called == count
