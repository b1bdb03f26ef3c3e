"""The event loop around an io_uring, and which loop a worker gets."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from time import monotonic

import pytest

from tests.io_uring import needs_io_uring
from tests.uring.kernels import WithoutRing
from uproxy.dataplane.program import new_loop
from uproxy.uring.loop import RingLoop, new_ring_loop
from uproxy.uring.queues import Queues


class TestChoice:
    @needs_io_uring
    def test_a_ring_where_there_is_one(self) -> None:
        loop = new_loop(ring=True)
        assert isinstance(loop, RingLoop)
        loop.close()

    def test_none_where_it_is_not_wanted(self) -> None:
        loop = new_loop(ring=False)
        assert not isinstance(loop, RingLoop)
        loop.close()

    def test_epoll_where_the_kernel_refuses(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("INFO"):
            loop = new_loop(ring=True, queues=WithoutRing)
        assert not isinstance(loop, RingLoop)
        assert "cannot use io_uring (Operation not permitted)" in caplog.text
        loop.close()


@needs_io_uring
class TestLoop:
    def test_leaves_no_descriptor(self) -> None:
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            new_ring_loop().close()
        assert len(os.listdir("/proc/self/fd")) == len(before)

    def test_timers_are_not_early_and_come_in_order(self) -> None:
        called: list[tuple[str, bool]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            begin = loop.time()

            def note(name: str, delay: float) -> None:
                called.append((name, loop.time() >= begin + delay - 1e-3))

            loop.call_later(0.06, note, "later", 0.06)
            loop.call_later(0.02, note, "sooner", 0.02)
            await asyncio.sleep(0.1)

        with asyncio.Runner(loop_factory=new_ring_loop) as runner:
            runner.run(main())
        assert called == [("sooner", True), ("later", True)]

    def test_other_threads_can_wake_it(self) -> None:
        async def main() -> str:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[str] = loop.create_future()
            thread = threading.Thread(
                target=lambda: loop.call_soon_threadsafe(future.set_result, "woken")
            )
            thread.start()
            async with asyncio.timeout(10):
                result = await future
            thread.join()
            return result

        with asyncio.Runner(loop_factory=new_ring_loop) as runner:
            assert runner.run(main()) == "woken"

    def test_a_timer_that_a_completion_sets_is_heeded(self) -> None:
        """The wait goes on after completions, and has to end if a callback schedules something."""
        near, far = socket.socketpair()

        async def main() -> float:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, RingLoop)
            done: asyncio.Future[float] = loop.create_future()

            def readable(completion: int) -> None:
                loop.call_later(0.01, lambda: done.set_result(monotonic()))

            loop.ring.poll_add(near.fileno(), 1, readable)
            begin = monotonic()
            loop.call_later(0.01, far.send, b"x")
            async with asyncio.timeout(10):
                return await done - begin

        with near, far, asyncio.Runner(loop_factory=new_ring_loop) as runner:
            # Not when something else, such as the timeout, wakes the loop anyhow.
            assert runner.run(main()) < 5

    def test_ends_with_its_ring(self) -> None:
        """A worker that can submit nothing any more is better replaced."""
        queues = Queues()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, RingLoop)
            os.dup2(0, queues.fd)
            try:
                loop.ring.cancel(1)
                loop.ring.submit()
            except OSError:
                await asyncio.sleep(3600)

        with (
            pytest.raises(OSError, match="Operation not supported"),
            asyncio.Runner(loop_factory=lambda: new_ring_loop(lambda: queues)) as runner,
        ):
            runner.run(main())
