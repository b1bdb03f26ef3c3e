"""A worker process: listens to the control process, and serves what it is told to.

It ends when its channel does, whatever flows it has: a worker without a control process would
serve routes that nobody keeps up to date.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import signal
import socket
import sys
from functools import partial

from uproxy.channel import (
    Channel,
    ChannelClosed,
    Close,
    Drain,
    Drained,
    LocalClients,
    Open,
    Ready,
    Report,
    Settings,
    ToWorker,
    Update,
)
from uproxy.core.counters import Counters
from uproxy.core.route import Backend, Frontend, Route, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.ring_loop import new_ring_loop
from uproxy.dataplane.tcp import TcpEngine, TcpListener
from uproxy.dataplane.udp import UdpEngine, UdpListener
from uproxy.logs import formatter
from uproxy.sockets import descriptor_limit

log = logging.getLogger(__name__)

Listener = TcpListener | UdpListener
_GC_THRESHOLD = 20_000
"""Allocations between young collections. Flows are free of reference cycles, so what the
collector could find is next to nothing, and looking for it costs every flow some time."""


class Worker:
    """Carries out what the control process says, and reports what was counted."""

    def __init__(self, channel: Channel[ToWorker], context: Context) -> None:
        self._channel = channel
        self._context = context
        self._tcp = TcpEngine(context)
        self._udp = UdpEngine(context)
        self._listeners: dict[Frontend, Listener] = {}
        self._frontends: dict[ServicePortName, set[Frontend]] = {}
        self._reported: dict[ServicePortName, Counters] = {}
        self._draining = False
        self._most = 0
        """Flows at a time, as was reported."""

    def handle(self, message: ToWorker, descriptor: int | None) -> None:
        """Act on one message."""
        match message:
            case Open(route):
                assert descriptor is not None
                self._open(route, self._context.reactor.kernel.adopt(descriptor))
            case Update(route):
                self._update(route)
            case Close(frontend, grace):
                self._close(frontend, grace)
            case LocalClients():
                self._context.set_local_clients(message)
            case Drain():
                self._draining = True
                for listener in self._listeners.values():
                    listener.stop_accepting()
                self.report()
            case Settings():
                raise AssertionError("settings come first, and once")

    def report(self) -> None:
        """Tell what has changed since the last report."""
        self._tcp.collect()
        changes, most = self._changes(), self._context.capacity.most
        if changes or most != self._most:
            self._channel.send([Report(changes, self._context.active, most)])
        if most and not self._most:
            log.warning("its open files allow for %d flows at a time; raise LimitNOFILE", most)
        self._most = most
        if self._draining and self._context.active == 0:
            self._draining = False
            self._channel.send([Drained()])

    def close(self) -> None:
        for listener in self._listeners.values():
            listener.close(0)
        self._listeners.clear()
        self._tcp.close()
        self._udp.close()

    def _open(self, route: Route, sock: socket.socket) -> None:
        self._close(route.frontend, 0)
        listener: Listener
        if route.frontend.protocol == "TCP":
            listener = TcpListener(self._context, self._tcp, sock, route)
        else:
            listener = UdpListener(self._context, self._udp, sock, route)
        self._add(listener)

    def _update(self, route: Route) -> None:
        listener = self._take(route.frontend)
        if listener is not None:
            listener.update(route)
            self._add(listener)
            self._retain(route.owner)

    def _retain(self, owner: ServicePortName) -> None:
        """Let the balancer forget backends that no frontend of the port has any more."""
        backends: set[Backend] = set()
        for frontend in self._frontends.get(owner, ()):
            route = self._listeners[frontend].route
            backends.update(route.backends, route.local_backends or ())
        self._context.port(owner).balancer.retain(backends)

    def _add(self, listener: Listener) -> None:
        route = listener.route
        self._listeners[route.frontend] = listener
        self._frontends.setdefault(route.owner, set()).add(route.frontend)

    def _take(self, frontend: Frontend) -> Listener | None:
        listener = self._listeners.pop(frontend, None)
        if listener is not None:
            owner = listener.route.owner
            self._frontends[owner].discard(frontend)
            if not self._frontends[owner]:
                del self._frontends[owner]
        return listener

    def _close(self, frontend: Frontend, grace: float) -> None:
        listener = self._take(frontend)
        if listener is not None:
            listener.close(grace)

    def _changes(self) -> list[tuple[ServicePortName, Counters]]:
        changes = []
        gone = set()
        for name, port in self._context.ports().items():
            before = self._reported.get(name, _NOTHING)
            if port.counters != before:
                changes.append((name, _difference(port.counters, before)))
                self._reported[name] = _copy(port.counters)
            elif name not in self._frontends and port.counters.active == 0:
                gone.add(name)
        self._context.forget(gone)
        for name in gone:
            self._reported.pop(name, None)
        return changes


_NOTHING = Counters()


def _copy(counters: Counters) -> Counters:
    copy = Counters(dropped={})
    copy.add(counters)
    return copy


def _difference(now: Counters, before: Counters) -> Counters:
    """What was added since; `active` is absolute."""
    return Counters(
        flows=now.flows - before.flows,
        active=now.active,
        client_bytes=now.client_bytes - before.client_bytes,
        backend_bytes=now.backend_bytes - before.backend_bytes,
        client_datagrams=now.client_datagrams - before.client_datagrams,
        backend_datagrams=now.backend_datagrams - before.backend_datagrams,
        dial_failures=now.dial_failures - before.dial_failures,
        retries=now.retries - before.retries,
        masqueraded=now.masqueraded - before.masqueraded,
        dropped={
            reason: count - before.dropped.get(reason, 0)
            for reason, count in now.dropped.items()
            if count != before.dropped.get(reason, 0)
        },
    )


async def serve(channel: Channel[ToWorker]) -> None:
    """Run until the control process closes the channel."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    reactor = Reactor(loop)
    worker: Worker | None = None
    interval = 0.5

    def receive() -> None:
        nonlocal worker, interval
        try:
            for message, descriptor in channel.receive():
                if isinstance(message, Settings):
                    interval = message.report_interval
                    worker = Worker(
                        channel, Context(reactor, message, random.random, descriptor_limit())
                    )
                    if reactor.ring is not None:
                        reactor.ring.watch.allowed = message.busy_poll
                    channel.send([Ready("io_uring" if reactor.ring is not None else "epoll")])
                else:
                    assert worker is not None
                    worker.handle(message, descriptor)
        except ChannelClosed:
            ended.set()

    loop.add_reader(channel.fileno(), receive)
    try:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await ended.wait()
            if worker is not None:
                with contextlib.suppress(ChannelClosed):
                    worker.report()
                    channel.flush()
    finally:
        loop.remove_reader(channel.fileno())
        if worker is not None:
            worker.close()
        reactor.close()
        channel.close()


def new_loop(*, ring: bool) -> asyncio.AbstractEventLoop:
    """With `ring` one around an io_uring, if the kernel grants it."""
    if ring:
        try:
            return new_ring_loop()
        except OSError as error:
            # Old kernels, seccomp profiles, sysctl kernel.io_uring_disabled: `uproxy doctor` says.
            log.info("io_uring cannot be used (%s); epoll is", error.strerror)
    # Only now: a worker with a ring does without, and saves the memory. uvloop wants TLS.
    if sys.modules.get("ssl", sys) is None:
        del sys.modules["ssl"]
    import uvloop

    return uvloop.new_event_loop()


def main(descriptor: int, *, ring: bool = True) -> None:
    """Run a worker whose channel is the given descriptor."""
    # A supervisor may send SIGTERM to all processes of a service, but the control process decides
    # when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter("text"))
    logging.basicConfig(handlers=[handler])
    kind: type[ToWorker] = ToWorker  # type: ignore[assignment]
    channel = Channel(socket.socket(fileno=descriptor), kind)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    with asyncio.Runner(loop_factory=partial(new_loop, ring=ring)) as runner:
        runner.run(serve(channel))
