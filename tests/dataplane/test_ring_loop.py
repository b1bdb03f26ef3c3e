"""The event loop around an io_uring, and what a worker does without one."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from time import monotonic

import pytest

from tests.dataplane.conftest import HAS_RING
from uproxy.dataplane import ring_loop
from uproxy.dataplane.ring import BUFFERS, Ring, send_entry
from uproxy.dataplane.ring_abi import BUFFER_SHIFT, HAS_BUFFER, IGNORED, UNSENT, errno_of
from uproxy.dataplane.ring_loop import RingLoop, new_ring_loop
from uproxy.dataplane.worker import new_loop

needs_ring = pytest.mark.skipif(not HAS_RING, reason="the kernel grants no io_uring")


class NoRing(Ring):
    def __init__(self, *arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


class TestChoice:
    @needs_ring
    def test_a_ring_where_there_is_one(self) -> None:
        loop = new_loop(ring=True)
        assert isinstance(loop, RingLoop)
        loop.close()

    def test_none_where_it_is_not_wanted(self) -> None:
        loop = new_loop(ring=False)
        assert not isinstance(loop, RingLoop)
        loop.close()

    def test_epoll_where_the_kernel_refuses(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(ring_loop, "Ring", NoRing)
        with caplog.at_level("INFO"):
            loop = new_loop(ring=True)
        assert not isinstance(loop, RingLoop)
        assert "io_uring cannot be used (Operation not permitted)" in caplog.text
        loop.close()


@needs_ring
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
        """The wait goes on after completions; asyncio must hear of what their callbacks ask for."""
        near, far = socket.socketpair()

        async def main() -> float:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, RingLoop)
            done: asyncio.Future[float] = loop.create_future()

            def readable(completion: int) -> None:
                loop.call_later(0.01, lambda: done.set_result(monotonic()))

            loop.ring.poll(near.fileno(), 1, readable)
            begin = monotonic()
            loop.call_later(0.01, far.send, b"x")
            async with asyncio.timeout(10):
                return await done - begin

        with near, far, asyncio.Runner(loop_factory=new_ring_loop) as runner:
            # Not when something else, such as the timeout, wakes the loop anyhow.
            assert runner.run(main()) < 5


@needs_ring
class TestRing:
    """What its callers rely on."""

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
            ring.receive(source.fileno(), key)
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
            ring.receive(near.fileno(), key)
            for _ in range(BUFFERS):
                far.send(b"x")
                ring.turn(wait=False)
            far.send(b"y")
            ring.turn(wait=False)
            assert (count, refused) == (BUFFERS, [errno.ENOBUFS])
            ring.buffers.free(kept[0])
            ring.receive(near.fileno(), key)
            ring.turn(wait=False)
            assert count == BUFFERS + 1
        finally:
            ring.close()
            near.close()
            far.close()
