"""Submitting to a kernel that takes nothing for a moment, or for good."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.io_uring import needs_io_uring
from tests.uring.kernels import Refusing
from tests.uring.rings import receive_all
from uproxy.uring.abi import USER_DATA_IGNORED
from uproxy.uring.ring import Ring

pytestmark = needs_io_uring


class Refused:
    """A ring that the kernel refuses at times, and how often it has paused for that."""

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
        """Otherwise a socket that is closed after it could have given its number to another by the
        time that the kernel looks it up."""
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            refused.ring.send(near.fileno(), USER_DATA_IGNORED, 0, 5)
            refused.queues.refusals = 3
            refused.ring.submit()
            assert len(far.recv(100)) == 5

    def test_the_kernel_lets_go_of_what_was_cancelled(self, refused: Refused) -> None:
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

    def test_the_kernel_lets_go_of_all_that_was_cancelled(self, refused: Refused) -> None:
        """Linux 6.18 does the task work of 20 operations in a call, and leaves the rest."""
        ring = refused.ring
        with ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(100)]
            operations = []
            for near, far in pairs:
                stack.enter_context(near)
                stack.enter_context(far).setblocking(False)
                operations.append(ring.add_callback(print))
                receive_all(ring, near.fileno(), operations[-1])
            ring.submit()
            for user_data in operations:
                ring.remove_callback(user_data)
                ring.cancel(user_data)
            ring.submit_and_get_events()
            for near, far in pairs:
                near.close()
                assert far.recv(100) == b""

    def test_a_turn_decides_all_sends(self, refused: Refused) -> None:
        """Their buffers are given back at its end."""
        ring = refused.ring
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            for _ in range(3):
                ring.send(near.fileno(), USER_DATA_IGNORED, 0, 5)
            refused.queues.refusals, refused.queues.most = 3, 2
            ring.submit_and_wait(1)
            assert len(far.recv(100)) == 15

    def test_a_kernel_that_goes_on_refusing_ends_the_loop(self, refused: Refused) -> None:
        """An error that a user of the ring has caught is raised again by the next turn."""
        ring = refused.ring
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            for _ in range(len(refused.queues.sqes) // 64):
                ring.send(near.fileno(), USER_DATA_IGNORED, 0, 1)
            refused.queues.refusals = 1 << 30
            for operation in (ring.submit, lambda: ring.cancel(1), lambda: ring.submit_and_wait(1)):
                with pytest.raises(OSError, match="keeps refusing what is queued"):
                    operation()
            refused.queues.refusals = 0
            with pytest.raises(OSError, match="keeps refusing what is queued"):
                ring.submit_and_wait(1)
            with pytest.raises(BlockingIOError):
                far.recv(1)

    def test_completions_for_which_there_was_no_room_belong_to_the_same_turn(
        self, refused: Refused
    ) -> None:
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
