"""One place among the workers: what is said to the process there, and what it says."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec

from uproxy.control.workers.liveness import Liveness, Timeouts
from uproxy.control.workers.outbox import Outbox
from uproxy.core.report.status import WorkerStatus
from uproxy.net.channel import Channel
from uproxy.net.messages import FromWorker, Ready, Report, ToWorker
from uproxy.net.sockets import LINUX, SocketCalls

log = logging.getLogger(__name__)

_FRAMES = 8
"""Sent in a row, before others get their turn."""
_RETRY = 0.05
"""Seconds until it is tried again to send what the kernel had no memory for."""


class Worker:
    """The process in it may change."""

    def __init__(
        self,
        index: int,
        timeouts: Timeouts,
        said: Callable[[Worker, FromWorker], None],
        calls: SocketCalls = LINUX,
    ) -> None:
        """`said` is called with each message of the process."""
        self.index = index
        self.liveness = Liveness(timeouts)
        self.pid = 0
        self.restarts = 0
        self.engine = ""
        """What it relays by, once that is known."""
        self.active_flows = 0
        self.most_flows = 0
        """Where it can open too few files for its part of --max-flows; else 0."""
        self.ready = asyncio.Event()
        """Set while a process runs here that has started."""
        self.over = asyncio.Event()
        """Set when nothing more is to be expected of the process."""
        self.why_over = ""
        """What is wrong with it; "": the end of its channel, by which its own end shows."""
        self.drained = asyncio.Event()
        """Set when it has no flow left after `drain`, or is dead and not to be replaced."""
        self._said = said
        self._calls = calls
        self._outbox = Outbox()
        self._channel: Channel[FromWorker] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._writing = False

    def __repr__(self) -> str:
        state = "ready" if self.ready.is_set() else "starting"
        return f"<Worker {self.index} pid {self.pid} {state}, {self.active_flows} flows>"

    def __str__(self) -> str:
        """With what is wrong."""
        return f"worker {self.index} {self.liveness.reason}"

    def connect(self, sock: socket.socket) -> None:
        """A process has been started; `sock` leads to it."""
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        self.over.clear()
        self.why_over = ""
        self._channel = Channel(sock, kind, self._calls)
        asyncio.get_running_loop().add_reader(sock, self._receive)

    def disconnect(self) -> None:
        """Close the channel, when all that came by it is read; the process ends by that."""
        channel, self._channel = self._channel, None
        self._outbox.clear()
        self._stop_waiting()
        if channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(channel.fileno())
            loop.remove_writer(channel.fileno())
            while self._take(channel):
                pass
            channel.close()
        self._writing = False
        self.active_flows = 0
        self.ready.clear()

    def tell(self, message: ToWorker, sock: socket.socket | None = None) -> None:
        """Say something, together with all that is said in this turn of the event loop. A process
        that is just being replaced learns it all when it starts."""
        if self._channel is None:
            return
        self._outbox.put(message, sock)
        if self._soon is None and self._retry is None and not self._writing:
            self._soon = asyncio.get_running_loop().call_soon(self._send)

    def give_up(self, why: str) -> None:
        """The process is to be replaced."""
        self.why_over = self.why_over or why
        self.over.set()

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            index=self.index,
            pid=self.pid,
            restarts=self.restarts,
            active_flows=self.active_flows,
            engine=self.engine,
            most_flows=self.most_flows or msgspec.UNSET,
            reason=self.liveness.reason,
        )

    def _send(self) -> None:
        """Send what there is room for, and see to it that the rest is sent as well."""
        self._stop_waiting()
        channel = self._channel
        if channel is None:
            return
        for _ in range(_FRAMES):
            taken = channel.offer(self._outbox.messages)
            self._outbox.taken(taken)
            if not taken:
                break
        if channel.ended:
            self._over(channel)
        elif not channel.out_of_resources:
            self._watch_room(channel, wanted=channel.wants_write or bool(self._outbox))
        else:
            self._watch_room(channel, wanted=False)
            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._send)

    def _watch_room(self, channel: Channel[FromWorker], *, wanted: bool) -> None:
        loop = asyncio.get_running_loop()
        if wanted and not self._writing:
            loop.add_writer(channel.fileno(), self._send)
        elif self._writing and not wanted:
            loop.remove_writer(channel.fileno())
        self._writing = wanted

    def _stop_waiting(self) -> None:
        for handle in (self._retry, self._soon):
            if handle is not None:
                handle.cancel()
        self._retry = self._soon = None

    def _receive(self) -> None:
        channel = self._channel
        if channel is None:
            return
        self._take(channel)
        if channel.ended:
            self._over(channel)

    def _take(self, channel: Channel[FromWorker]) -> bool:
        messages = channel.receive()
        for message, _ in messages:
            try:
                self._hear(message)
            except Exception:
                log.exception("%r: %s cannot be used", self, type(message).__name__)
        return bool(messages)

    def _hear(self, message: FromWorker) -> None:
        match message:
            case Ready(engine):
                self.engine = engine
                self.liveness.ready()
                self.ready.set()
            case Report(_, active, most):
                self.active_flows, self.most_flows = active, most
        self.liveness.heard()
        self._said(self, message)

    def _over(self, channel: Channel[FromWorker]) -> None:
        """Nothing can be said or heard any more."""
        asyncio.get_running_loop().remove_reader(channel.fileno())
        self._watch_room(channel, wanted=False)
        self._outbox.clear()
        self.give_up(channel.fault)
