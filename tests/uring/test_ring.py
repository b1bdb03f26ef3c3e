"""A ring of this machine: what its users rely on in a turn."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tests.io_uring import needs_io_uring
from tests.uring.kernels import WithoutBuffers
from tests.uring.rings import receive_all
from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    SEND_INCOMPLETE,
    USER_DATA_IGNORED,
    USER_DATA_SEND,
    errno_of,
)
from uproxy.uring.queues import Queues
from uproxy.uring.ring import BUFFER_COUNT, Ring

pytestmark = needs_io_uring


class TestRing:
    def test_the_owner_of_a_send_to_a_full_socket_is_told_in_the_next_turn(self) -> None:
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
                    bid = completion >> CQE_BUFFER_SHIFT
                    ring.send(far.fileno(), user_data | USER_DATA_SEND, bid, 5)

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

    @pytest.mark.parametrize("first", ["send", "receive"])
    def test_a_failed_send_is_told_before_what_a_later_look_receives(self, first: str) -> None:
        """However they lie in the batch. So the owner of a stream knows what is left of its last
        send when the next message comes."""
        ring = Ring()
        near, far = socket.socketpair()
        told: list[str] = []
        try:
            self.fill(near)
            far.send(b"there already")

            def arrived(completion: int) -> None:
                told.append("send" if completion & SEND_INCOMPLETE else "receive")

            user_data = ring.add_callback(arrived)
            ring.recv_limit_supported = False
            for operation in (first, {"send": "receive", "receive": "send"}[first]):
                if operation == "send":
                    ring.send(near.fileno(), user_data | USER_DATA_SEND, 0, 5)
                else:
                    ring.recv(near.fileno(), user_data, True)
            ring.submit_and_wait(1)
            ring.submit_and_wait(0)
            assert told == ["send", "receive"]
        finally:
            ring.close()
            near.close()
            far.close()

    def fill(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            while True:
                sock.send(b"x" * 4096)
        except BlockingIOError:
            pass

    def test_only_a_send_that_is_still_queued_waits_for_more(self) -> None:
        """The place of one that was submitted may hold the send of another socket."""
        queues = Queues()
        ring = Ring(lambda: queues)
        other, sink = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        near, far = socket.socketpair()
        try:
            sink.bind(("127.0.0.1", 0))
            other.connect(sink.getsockname())
            sink.setblocking(False)
            number = ring.send(near.fileno(), USER_DATA_IGNORED, 0, 5)
            ring.submit()
            for _ in range(queues.sq_mask):
                ring.cancel(1)
            ring.submit()
            place = ring.send(other.fileno(), USER_DATA_IGNORED, 1, 5) & queues.sq_mask
            assert place == number & queues.sq_mask
            ring.set_msg_more(number)
            ring.submit()
            assert len(sink.recv(100)) == 5  # One that waits for more does not leave.
            ring.set_msg_more(ring.send(other.fileno(), USER_DATA_IGNORED, 1, 5))
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

    def test_a_callback_that_fails_to_cope_with_a_failed_send_is_named(self) -> None:
        """So that its owner can be ended, which does not know what is left of the send."""
        ring = Ring()
        failures: list[object] = []
        ring.on_error = lambda callback, _: failures.append(callback)
        near, far = socket.socketpair()

        def bad(completion: int) -> None:
            raise RuntimeError("bad")

        try:
            self.fill(near)
            sender = ring.add_callback(bad) | USER_DATA_SEND
            ring.send(near.fileno(), sender, 0, 5)
            ring.submit_and_wait(0)
            assert failures == [bad]
        finally:
            ring.close()
            near.close()
            far.close()

    def test_more_messages_than_buffers(self) -> None:
        """No bytes are lost: a receive that finds no buffer ends with ENOBUFS, and is repeated."""
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


def test_a_ring_that_cannot_have_buffers_is_closed() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionError):
        Ring(WithoutBuffers)
    assert os.listdir("/proc/self/fd") == before
