"""How a ring waits: asleep, unless completions come one at a time and soon."""

from __future__ import annotations

import array
import asyncio
import socket
from collections.abc import Callable
from time import monotonic

import pytest

from tests.io_uring import needs_io_uring
from tests.uring.rings import receive_all
from uproxy.uring.abi import SQ_CQ_OVERFLOW, SQ_TASKRUN
from uproxy.uring.busy_poll import POLL_SECONDS, STREAK, BusyPoll
from uproxy.uring.loop import RingLoop, new_ring_loop
from uproxy.uring.ring import Ring

SQ_FLAGS, CQ_TAIL = 0, 1
"""Where these two are in the memory of the fake queues."""


class Clock:
    """Goes on by a little each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = POLL_SECONDS / 10
        self.looked: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        self.now += self.step
        self.looked()
        return self.now


class Kernel:
    """Queues, and the calls that were made with them."""

    sq_flags_at, cq_tail_at = SQ_FLAGS, CQ_TAIL

    def __init__(self) -> None:
        self.memory = array.array("I", [0, 7])
        self.fields = memoryview(self.memory)
        self.calls: list[str] = []
        self.at_once = False
        """Whether something completes when it is submitted."""
        self.taken: int | None = None

    def enter(self, to_submit: int, *, get_events: bool) -> int:
        self.calls.append(f"events {to_submit}" if get_events else f"submit {to_submit}")
        if self.at_once:
            self.memory[CQ_TAIL] += 1
        return to_submit if self.taken is None else self.taken

    def enter_and_wait(self, to_submit: int) -> int:
        self.calls.append(f"sleep {to_submit}")
        return to_submit if self.taken is None else self.taken


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def busy_poll(kernel: Kernel, clock: Clock) -> BusyPoll:
    busy_poll = BusyPoll(kernel, clock)
    busy_poll.streak = STREAK
    return busy_poll


class TestAsleep:
    def test_before_the_streak_is_long_enough(self, busy_poll: BusyPoll, kernel: Kernel) -> None:
        busy_poll.streak = STREAK - 1
        assert busy_poll.enter_and_wait(3) == 3
        assert kernel.calls == ["sleep 3"]
        assert busy_poll.streak == STREAK - 1

    def test_a_completion_that_came_late_ends_the_streak(
        self, busy_poll: BusyPoll, kernel: Kernel, clock: Clock
    ) -> None:
        busy_poll.streak, clock.step = STREAK - 1, POLL_SECONDS * 1.1
        busy_poll.enter_and_wait(3)
        assert kernel.calls == ["sleep 3"]
        assert busy_poll.streak == 0


class TestAwake:
    def test_it_sees_a_completion_while_it_looks(
        self, busy_poll: BusyPoll, kernel: Kernel, clock: Clock
    ) -> None:
        looks = iter(range(5))

        def arrives() -> None:
            if next(looks) == 3:
                kernel.memory[SQ_FLAGS] = SQ_TASKRUN

        clock.looked = arrives
        assert busy_poll.enter_and_wait(2) == 2
        assert kernel.calls == ["submit 2", "events 0"]
        assert busy_poll.streak == STREAK

    def test_what_completes_at_once_is_not_waited_for(
        self, busy_poll: BusyPoll, kernel: Kernel
    ) -> None:
        kernel.at_once = True
        assert busy_poll.enter_and_wait(2) == 2
        assert kernel.calls == ["submit 2"]

    @pytest.mark.parametrize("taken", [-1, 1])
    def test_what_was_not_taken_is_to_be_submitted_first(
        self, busy_poll: BusyPoll, kernel: Kernel, taken: int
    ) -> None:
        kernel.taken = taken
        assert busy_poll.enter_and_wait(2) == taken
        assert kernel.calls == ["submit 2"]

    def test_it_goes_to_sleep_when_nothing_comes(
        self, busy_poll: BusyPoll, kernel: Kernel, clock: Clock
    ) -> None:
        assert busy_poll.enter_and_wait(2) == 2
        assert kernel.calls == ["submit 2", "sleep 0"]
        assert clock.now <= POLL_SECONDS * 1.5
        assert busy_poll.streak == 0

    def test_other_flags_are_ignored(self, busy_poll: BusyPoll, kernel: Kernel) -> None:
        kernel.memory[SQ_FLAGS] = 1 | SQ_CQ_OVERFLOW
        busy_poll.enter_and_wait(2)
        assert kernel.calls == ["submit 2", "sleep 0"]


@needs_io_uring
class TestRing:
    """What traffic does to the streak of a real ring."""

    @pytest.mark.parametrize("allowed", [True, False])
    def test_a_conversation_alone_makes_a_streak(self, *, allowed: bool) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, RingLoop)
            ring = loop.ring
            ring.busy_poll.allowed = allowed
            near, far = socket.socketpair()
            answers = 0
            done = asyncio.Event()

            def arrived(completion: int) -> None:
                nonlocal answers
                answers += 1
                ring.buffers.give_back(completion >> 48)
                if ring.busy_poll.streak < STREAK and answers < 2000:
                    far.send(b"again")  # Completes in the next turn, alone.
                else:
                    done.set()

            user_data = ring.add_callback(arrived)
            with near, far:
                receive_all(ring, near.fileno(), user_data)
                far.send(b"first")
                await done.wait()
                ring.remove_callback(user_data)
                ring.cancel(user_data)
            return ring.busy_poll.streak

        with asyncio.Runner(loop_factory=new_ring_loop) as runner:
            assert runner.run(main()) == (STREAK if allowed else 0)

    @pytest.mark.timeout(20)
    def test_task_work_is_seen_without_a_call(self) -> None:
        """The time for looking never ends here, so one that reads the wrong flags goes on for
        ever."""
        ring = Ring(clock=lambda: 0.0)
        ring.busy_poll.streak = STREAK
        completions: list[int] = []
        try:
            ring.timeout_at(monotonic() + 0.02, completions.append)
            ring.submit_and_wait(1)
            assert len(completions) == 1
            assert ring.busy_poll.streak == STREAK
        finally:
            ring.close()

    def test_two_completions_at_once_end_the_streak(self) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, RingLoop)
            ring = loop.ring
            ring.busy_poll.allowed = True
            ring.busy_poll.streak = STREAK
            done = asyncio.Event()
            counts = []

            def arrived(completion: int) -> None:
                counts.append(ring.busy_poll.streak)
                done.set()

            pairs = [socket.socketpair() for _ in range(2)]
            for near, far in pairs:
                far.send(b"at the same time")
                ring.poll_add(near.fileno(), 1, arrived)
            await done.wait()
            for each in pairs:
                for sock in each:
                    sock.close()
            return counts[0]

        with asyncio.Runner(loop_factory=new_ring_loop) as runner:
            assert runner.run(main()) == 0
