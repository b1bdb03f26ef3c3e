"""The process of a worker. It ends when its channel to the control process does, whatever flows it
has: a worker without a control process would go on serving routes that are no longer up to date.
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
from uproxy.net.messages import End, Ready, Settings, ToWorker
from uproxy.net.sockets import descriptor_limit
from uproxy.text.logs import formatter
from uproxy.uring.loop import new_ring_loop
from uproxy.uring.queues import Queues, RingQueues

log = logging.getLogger(__name__)

_GC_THRESHOLD = 20_000
"""Allocations between two collections of the youngest generation. Flows are free of reference
cycles, so the collector would find next to nothing, and each search costs time."""

_LAST_MOMENTS = 0.3
"""Seconds in which the event loop may still end by itself. The control process waits for a second
before it kills this process."""

_PR_SET_PDEATHSIG = 1


class _Process:
    """A worker, its channel, and the descriptors that are kept for what the channel brings."""

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
            log.exception("cannot handle a message from the control process")
            self.ended.set()
        if self._channel.ended:
            self.ended.set()

    def report(self) -> None:
        self._spare.refill()
        if self._worker is not None:
            self._worker.report()
        if self._channel.ended:
            self.ended.set()

    def on_sigcont(self, *_: object) -> None:
        """The process was stopped, and goes on. This runs before any event of the meantime is
        looked at. If the control process has closed the channel, it has given up this worker: the
        clients that wait in its accept queues are for the worker that replaces it."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLHUP)
        if self._worker is not None and poll.poll(0):
            signal.setitimer(signal.ITIMER_REAL, _LAST_MOMENTS)
            self._worker.stop_accepting()

    def on_sigalrm(self, *_: object) -> None:
        """The event loop hangs, and the process is about to be killed. The kernel would close its
        connections as if everything had been sent, so they are reset here."""
        try:
            self.close()
        finally:
            os._exit(1)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._report_cut_flows(self._worker)
        self._engine.reactor.close()
        self._spare.close()
        self._channel.close()

    def _report_cut_flows(self, worker: Worker) -> None:
        """Report the flows that this process has ended, if the control process still reads."""
        try:
            worker.report()
            self._channel.flush_for(_LAST_MOMENTS)
        except Exception:
            log.exception("cannot report the flows that have ended with this process")

    def _receive(self) -> None:
        if self._worker is not None and self._worker.has_unserved:
            self._spare.release()
        for message, descriptor in self._channel.receive():
            if self._worker is None:
                assert isinstance(message, Settings)
                self._begin(message)
            elif isinstance(message, End):
                self.ended.set()
            else:
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
    """Run until the control process says `End`, or closes the channel."""
    loop = asyncio.get_running_loop()
    process = _Process(channel)
    loop.add_reader(channel.fileno(), process.receive)
    signal.signal(signal.SIGCONT, process.on_sigcont)
    signal.signal(signal.SIGALRM, process.on_sigalrm)
    try:
        while not process.ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(process.interval):
                    await process.ended.wait()
            process.report()
    finally:
        # It comes once more: the control process sends SIGCONT to each worker that it ends, in case
        # the worker is stopped. By then there may be nothing left that the handler could use.
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        loop.remove_reader(channel.fileno())
        process.close()


def new_loop(*, ring: bool, queues: Callable[[], RingQueues] = Queues) -> asyncio.AbstractEventLoop:
    """An event loop around an io_uring, if `ring` is set and the kernel allows it; otherwise
    uvloop's."""
    if ring:
        try:
            return new_ring_loop(queues)
        except OSError as error:
            # An old kernel, a seccomp profile, or sysctl kernel.io_uring_disabled: `uproxy doctor`
            # says which.
            log.info("cannot use io_uring (%s); using epoll instead", error.strerror)
    # Imported only now, which saves a worker with a ring 6 MiB (docs/decisions/0007-io-uring.md).
    # uvloop needs the ssl module, which __main__ keeps asyncio from importing.
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
    # What has been imported stays for good, and need not be searched again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    with asyncio.Runner(loop_factory=partial(new_loop, ring=ring)) as runner:
        runner.run(serve(channel))


def _leave_signals_to_the_control_process() -> None:
    # A supervisor may send SIGTERM to all processes of a unit, and Ctrl-C reaches the whole group.
    # But the control process decides when a worker ends, or nothing would be drained.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A stopped worker (SIGSTOP) does not see that its channel has ended, and would keep its ports.
    # So the kernel wakes it when the control process is gone.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
