"""How a ring waits: asleep, unless completions come alone and soon."""

from __future__ import annotations

import array
import asyncio
import socket
from collections.abc import Callable
from time import monotonic

import pytest

from tests.dataplane.conftest import receive_all
from tests.io_uring import needs_io_uring
from uproxy.uring.busy_poll import AWAKE, LONELY, Watch
from uproxy.uring.loop import RingLoop, new_ring_loop
from uproxy.uring.ring import Ring

FLAGS, DONE = 0, 1
WORK = 4


class Clock:
    """Goes on by a little each time somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = AWAKE / 10
        self.looked: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        self.now += self.step
        self.looked()
        return self.now


class Kernel:
    """The queues, and what is done with them."""

    flags_at, done_tail_at = FLAGS, DONE

    def __init__(self) -> None:
        self.memory = array.array("I", [0, 7])
        self.numbers = memoryview(self.memory)
        self.calls: list[str] = []
        self.at_once = False
        """Whether something completes when it is submitted."""
        self.taken: int | None = None

    def enter(self, queued: int, *, events: bool) -> int:
        self.calls.append(f"events {queued}" if events else f"submit {queued}")
        if self.at_once:
            self.memory[DONE] += 1
        return queued if self.taken is None else self.taken

    def wait(self, queued: int) -> int:
        self.calls.append(f"sleep {queued}")
        return queued if self.taken is None else self.taken


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(kernel: Kernel, clock: Clock) -> Watch:
    watch = Watch(kernel, clock)
    watch.alone = LONELY
    return watch


class TestAsleep:
    def test_at_first(self, watch: Watch, kernel: Kernel) -> None:
        watch.alone = LONELY - 1
        assert watch.wait(3) == 3
        assert kernel.calls == ["sleep 3"]
        assert watch.alone == LONELY - 1

    def test_one_that_came_late_begins_anew(
        self, watch: Watch, kernel: Kernel, clock: Clock
    ) -> None:
        watch.alone, clock.step = LONELY - 1, AWAKE * 1.1
        watch.wait(3)
        assert kernel.calls == ["sleep 3"]
        assert watch.alone == 0


class TestAwake:
    def test_sees_what_comes(self, watch: Watch, kernel: Kernel, clock: Clock) -> None:
        looks = iter(range(5))

        def arrives() -> None:
            if next(looks) == 3:
                kernel.memory[FLAGS] = WORK

        clock.looked = arrives
        assert watch.wait(2) == 2
        assert kernel.calls == ["submit 2", "events 0"]
        assert watch.alone == LONELY

    def test_what_completes_at_once_is_not_waited_for(self, watch: Watch, kernel: Kernel) -> None:
        kernel.at_once = True
        assert watch.wait(2) == 2
        assert kernel.calls == ["submit 2"]

    @pytest.mark.parametrize("taken", [-1, 1])
    def test_what_was_not_taken_comes_first(self, watch: Watch, kernel: Kernel, taken: int) -> None:
        kernel.taken = taken
        assert watch.wait(2) == taken
        assert kernel.calls == ["submit 2"]

    def test_goes_to_sleep_when_nothing_comes(
        self, watch: Watch, kernel: Kernel, clock: Clock
    ) -> None:
        assert watch.wait(2) == 2
        assert kernel.calls == ["submit 2", "sleep 0"]
        assert clock.now <= AWAKE * 1.5
        assert watch.alone == 0

    def test_other_flags_are_none_of_its_business(self, watch: Watch, kernel: Kernel) -> None:
        kernel.memory[FLAGS] = 1 | 2
        watch.wait(2)
        assert kernel.calls == ["submit 2", "sleep 0"]


@needs_io_uring
class TestRing:
    """With a kernel: what a conversation does to the count."""

    @pytest.mark.parametrize("allowed", [True, False])
    def test_a_lonely_conversation(self, *, allowed: bool) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, RingLoop)
            ring = loop.ring
            ring.watch.allowed = allowed
            near, far = socket.socketpair()
            answers = 0
            done = asyncio.Event()

            def arrived(completion: int) -> None:
                nonlocal answers
                answers += 1
                ring.buffers.free(completion >> 48)
                if ring.watch.alone < LONELY and answers < 2000:
                    far.send(b"again")  # Completes in the next turn, alone.
                else:
                    done.set()

            key = ring.add(arrived)
            with near, far:
                receive_all(ring, near.fileno(), key)
                far.send(b"first")
                await done.wait()
                ring.remove(key)
                ring.cancel(key)
            return ring.watch.alone

        with asyncio.Runner(loop_factory=new_ring_loop) as runner:
            assert runner.run(main()) == (LONELY if allowed else 0)

    @pytest.mark.timeout(20)
    def test_what_the_kernel_has_for_us_is_seen_without_a_call(self) -> None:
        """A wrong look at the flags would look for ever: the time that it may take never ends."""
        ring = Ring()
        ring.watch = Watch(ring._queues, lambda: 0.0)
        ring.watch.alone = LONELY
        completions: list[int] = []
        try:
            ring.wake_at(monotonic() + 0.02, completions.append)
            ring.turn(wait=True)
            assert len(completions) == 1
            assert ring.watch.alone == LONELY
        finally:
            ring.close()

    def test_many_at_once_end_it(self) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, RingLoop)
            ring = loop.ring
            ring.watch.allowed = True
            ring.watch.alone = LONELY
            done = asyncio.Event()
            counts = []

            def arrived(completion: int) -> None:
                counts.append(ring.watch.alone)
                done.set()

            pairs = [socket.socketpair() for _ in range(2)]
            for near, far in pairs:
                far.send(b"at the same time")
                ring.poll(near.fileno(), 1, arrived)
            await done.wait()
            for each in pairs:
                for sock in each:
                    sock.close()
            return counts[0]

        with asyncio.Runner(loop_factory=new_ring_loop) as runner:
            assert runner.run(main()) == 0
