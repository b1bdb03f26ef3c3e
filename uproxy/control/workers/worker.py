"""One worker: the messages to its process and from it, whichever process that is at present."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec

from uproxy.control.workers.liveness import Liveness, Timeouts
from uproxy.control.workers.outbox import Outbox
from uproxy.core.report.status import WorkerStatus
from uproxy.net.channel import Channel
from uproxy.net.messages import End, FromWorker, Ready, Report, ToWorker
from uproxy.net.sockets import LINUX, SocketCalls

log = logging.getLogger(__name__)

_FRAMES = 8
"""Sent in a row before other callbacks of the event loop run."""
_RETRY = 0.05
"""Seconds until the next attempt to send a message for which the kernel had no memory."""


class Worker:
    """Lasts as long as the program; its process may be replaced by another."""

    def __init__(
        self,
        index: int,
        timeouts: Timeouts,
        received: Callable[[Worker, FromWorker], None],
        calls: SocketCalls = LINUX,
    ) -> None:
        """`received` is called with each message of the process."""
        self.index = index
        self.liveness = Liveness(timeouts)
        self.pid = 0
        self.restarts = 0
        self.engine = ""
        """What it relays with, "io_uring" or "epoll"; "" until it is ready."""
        self.active_flows = 0
        self.most_flows = 0
        """The flows that it can have, if its limit of open files allows fewer than its share of
        --max-flows; else 0."""
        self.ready = asyncio.Event()
        """Set while its process runs and has started."""
        self.ended = asyncio.Event()
        """Set when the process has ended or has to be replaced."""
        self.why_ended = ""
        """Why the process has to be replaced; "": its channel ended, which means that it did."""
        self.drained = asyncio.Event()
        """Set when no flow is left after `drain`, or the process has ended and is not replaced."""
        self._received = received
        self._calls = calls
        self._outbox = Outbox()
        self._channel: Channel[FromWorker] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._scheduled: asyncio.Handle | None = None
        self._writing = False

    def __repr__(self) -> str:
        state = "ready" if self.ready.is_set() else "starting"
        return f"<Worker {self.index} pid {self.pid} {state}, {self.active_flows} flows>"

    def __str__(self) -> str:
        """The worker, and what is wrong with it."""
        return f"worker {self.index} {self.liveness.reason}"

    def connect(self, sock: socket.socket) -> None:
        """A process has been started; `sock` leads to it."""
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        self.ended.clear()
        self.why_ended = ""
        self._channel = Channel(sock, kind, self._calls)
        asyncio.get_running_loop().add_reader(sock, self._receive)

    async def end(self, patience: float) -> None:
        """Have the process end its flows, and report them, for so many seconds at most."""
        self.tell(End())
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.ended.wait()

    def disconnect(self) -> None:
        """Read what has arrived on the channel, and close it; that makes the process end."""
        channel, self._channel = self._channel, None
        self._outbox.clear()
        self._cancel_calls()
        if channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(channel.fileno())
            loop.remove_writer(channel.fileno())
            while self._receive_from(channel):
                pass
            channel.close()
        self._writing = False
        self.active_flows = 0
        self.ready.clear()

    def tell(self, message: ToWorker, sock: socket.socket | None = None) -> None:
        """Send a message, together with all others of this iteration of the event loop. While no
        process runs, messages are dropped: the next one is told everything when it starts."""
        if self._channel is None:
            return
        self._outbox.put(message, sock)
        if self._scheduled is None and self._retry is None and not self._writing:
            self._scheduled = asyncio.get_running_loop().call_soon(self._send)

    def give_up(self, why: str) -> None:
        """The process is to be replaced."""
        self.why_ended = self.why_ended or why
        self.ended.set()

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
        """Send what the socket has room for, and arrange for the rest to be sent."""
        self._cancel_calls()
        channel = self._channel
        if channel is None:
            return
        for _ in range(_FRAMES):
            taken = channel.offer(self._outbox.messages)
            self._outbox.taken(taken)
            if not taken:
                break
        if channel.ended:
            self._ended_with(channel)
        elif not channel.out_of_resources:
            self._wait_for_room(channel, wanted=channel.wants_write or bool(self._outbox))
        else:
            self._wait_for_room(channel, wanted=False)
            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._send)

    def _wait_for_room(self, channel: Channel[FromWorker], *, wanted: bool) -> None:
        loop = asyncio.get_running_loop()
        if wanted and not self._writing:
            loop.add_writer(channel.fileno(), self._send)
        elif self._writing and not wanted:
            loop.remove_writer(channel.fileno())
        self._writing = wanted

    def _cancel_calls(self) -> None:
        for handle in (self._retry, self._scheduled):
            if handle is not None:
                handle.cancel()
        self._retry = self._scheduled = None

    def _receive(self) -> None:
        channel = self._channel
        if channel is None:
            return
        self._receive_from(channel)
        if channel.ended:
            self._ended_with(channel)

    def _receive_from(self, channel: Channel[FromWorker]) -> bool:
        messages = channel.receive()
        for message, _ in messages:
            try:
                self._receive_one(message)
            except Exception:
                log.exception("%r: cannot handle the message %s", self, type(message).__name__)
        return bool(messages)

    def _receive_one(self, message: FromWorker) -> None:
        match message:
            case Ready(engine):
                self.engine = engine
                self.liveness.ready()
                self.ready.set()
            case Report(_, active, most):
                self.active_flows, self.most_flows = active, most
        self.liveness.message_received()
        self._received(self, message)

    def _ended_with(self, channel: Channel[FromWorker]) -> None:
        """Nothing can be sent or received any more."""
        asyncio.get_running_loop().remove_reader(channel.fileno())
        self._wait_for_room(channel, wanted=False)
        self._outbox.clear()
        self.give_up(channel.fault)
