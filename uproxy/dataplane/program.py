"""The process of a worker. It listens to the control process, and ends when its channel does,
whatever flows it has: a worker without a control process would serve routes that nobody keeps up to
date.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

from uproxy.dataplane.context import Context
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.spare_descriptors import SpareDescriptors
from uproxy.dataplane.worker import Worker
from uproxy.net.channel import Channel
from uproxy.net.listening import descriptor_limit
from uproxy.net.messages import Ready, Settings, ToWorker
from uproxy.text.logs import formatter
from uproxy.uring.loop import new_ring_loop
from uproxy.uring.queues import Queues, RingQueues

log = logging.getLogger(__name__)

_GC_THRESHOLD = 20_000
"""Allocations between young collections. Flows are free of reference cycles, so what the
collector could find is next to nothing, and looking for it costs every flow some time."""

_LAST_MOMENTS = 0.3
"""Seconds that the event loop gets to end by itself; the control process waits for one."""

_PR_SET_PDEATHSIG = 1


class _Process:
    """A worker, its channel, and what its process has besides."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        self.ended = asyncio.Event()
        self.interval = 0.5
        self._channel = channel
        self._spare = SpareDescriptors()
        self._engine = choose_engine(asyncio.get_running_loop())
        self._worker: Worker | None = None

    def receive(self) -> None:
        try:
            self._receive()
        except Exception:
            log.exception("a message of the control process cannot be carried out")
            self.ended.set()
        if self._channel.ended:
            self.ended.set()

    def report(self) -> None:
        self._spare.refill()
        if self._worker is not None:
            self._worker.report()
        if self._channel.ended:
            self.ended.set()

    def continued(self, *_: object) -> None:
        """After SIGCONT, before anything that has happened meanwhile is looked at. Where the
        control process has not waited for us, clients in our queues are for our successor."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLHUP)
        if self._worker is not None and poll.poll(0):
            signal.setitimer(signal.ITIMER_REAL, _LAST_MOMENTS)
            self._worker.stop_accepting()

    def cut(self, *_: object) -> None:
        """The event loop hangs, and its process is about to be killed. Flows would end as if they
        were complete then; so they are reset."""
        try:
            self.close()
        finally:
            os._exit(1)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._engine.reactor.close()
        self._spare.close()
        self._channel.close()

    def _receive(self) -> None:
        if self._worker is not None and self._worker.has_unserved:
            self._spare.release()
        for message, descriptor in self._channel.receive():
            if isinstance(message, Settings):
                self._begin(message)
            else:
                assert self._worker is not None
                self._worker.handle(message, descriptor)
        self._spare.refill()

    def _begin(self, settings: Settings) -> None:
        engine = self._engine
        self.interval = settings.report_interval
        context = Context(engine.reactor, settings, random.random, descriptor_limit())
        self._worker = Worker(self._channel, context, engine)
        engine.reactor.allow_busy_poll(settings.busy_poll)
        self._channel.post(Ready(engine.name))


async def serve(channel: Channel[ToWorker]) -> None:
    """Run until the control process closes the channel."""
    loop = asyncio.get_running_loop()
    process = _Process(channel)
    loop.add_reader(channel.fileno(), process.receive)
    signal.signal(signal.SIGCONT, process.continued)
    signal.signal(signal.SIGALRM, process.cut)
    try:
        while not process.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(process.interval):
                    await process.ended.wait()
            process.report()
    finally:
        # The control process makes sure that a worker which is to end is not stopped.
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        loop.remove_reader(channel.fileno())
        process.close()


def new_loop(*, ring: bool, queues: Callable[[], RingQueues] = Queues) -> asyncio.AbstractEventLoop:
    """With `ring` one around an io_uring, if the kernel grants it."""
    if ring:
        try:
            return new_ring_loop(queues)
        except OSError as error:
            # Old kernels, seccomp profiles, sysctl kernel.io_uring_disabled: `uproxy doctor` says.
            log.info("io_uring cannot be used (%s); epoll is", error.strerror)
    # Only now: a worker with a ring does without, and saves the memory. uvloop wants TLS.
    if sys.modules.get("ssl", sys) is None:
        del sys.modules["ssl"]
    import uvloop

    return uvloop.new_event_loop()


def main(descriptor: int, *, ring: bool = True, log_format: str = "text") -> None:
    """Run a worker whose channel is the given descriptor."""
    _leave_signals_to_the_control_process()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(handlers=[handler])
    kind: type[ToWorker] = ToWorker  # type: ignore[assignment]
    channel = Channel(socket.socket(fileno=descriptor), kind)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    with asyncio.Runner(loop_factory=partial(new_loop, ring=ring)) as runner:
        runner.run(serve(channel))


def _leave_signals_to_the_control_process() -> None:
    # A supervisor may send SIGTERM to all processes of a service, but the control process decides
    # when a worker ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A worker that is stopped could not see the end of its channel, and would keep its ports.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
