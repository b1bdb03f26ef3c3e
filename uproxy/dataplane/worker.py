"""What a worker does: it serves what the control process says, and tells what it has counted."""

from __future__ import annotations

import logging
import socket

from uproxy.core import protocols
from uproxy.core.route import Backend, Frontend, Route, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.count_reports import Counting
from uproxy.dataplane.engine import Engine
from uproxy.dataplane.tcp.flows import TcpFlows
from uproxy.dataplane.tcp.listener import TcpListener
from uproxy.dataplane.udp.flows import UdpFlows
from uproxy.dataplane.udp.listener import UdpListener
from uproxy.dataplane.unserved import Lack
from uproxy.net.channel import Channel
from uproxy.net.messages import (
    Close,
    Drain,
    Drained,
    LocalClients,
    Open,
    Report,
    Settings,
    ToWorker,
    Unserved,
    Update,
)

log = logging.getLogger(__name__)

Listener = TcpListener | UdpListener

_SIGN_OF_LIFE = 2
"""Every so many reports one comes even if there is nothing to tell."""


class Worker:
    """Carries out what the control process says, and reports what was counted."""

    def __init__(self, channel: Channel[ToWorker], context: Context, engine: Engine) -> None:
        self._channel = channel
        self._context = context
        self._tcp = TcpFlows(context)
        self._udp = UdpFlows(context)
        self._new_intake = engine.new_intake
        self._listeners: dict[Frontend, Listener] = {}
        self._frontends: dict[ServicePortName, set[Frontend]] = {}
        self._counting = Counting(context)
        self._lacking = Lack()
        self._unchanged = 0
        """Reports that had nothing to tell, in a row."""
        self._accepts = True
        self._draining = False
        self._drained = False
        self._most = 0
        """Flows at a time, as was reported."""

    @property
    def lacks(self) -> bool:
        """Whether descriptors are on their way that have been lost before."""
        return bool(self._lacking)

    def handle(self, message: ToWorker, descriptor: int | None) -> None:
        """Act on one message. A failure concerns what it is about, and nothing else."""
        try:
            self._act(message, descriptor)
        except Exception:
            log.exception("%s could not be carried out", type(message).__name__)
            if isinstance(message, Open | Update):
                self._lacking.add(message.route.frontend)

    def report(self) -> None:
        """Tell what has changed since the last report, or now and then that nothing has."""
        self._context.capacity.settle()
        channel = self._channel
        channel.flush()
        if channel.wants_write:
            return  # Nobody listens. What is counted meanwhile is told later, at once.
        self._tcp.collect()
        changes, most = self._counting.changes(self._frontends), self._context.capacity.most
        self._context.ports.forget_clients(name for name, _ in changes)
        self._unchanged = 0 if changes or most != self._most else self._unchanged + 1
        if self._unchanged % _SIGN_OF_LIFE == 0:
            failing = self._counting.failing(changes)
            channel.post(Report(changes, self._context.active, most, failing))
        if most and not self._most:
            log.warning(
                "the limit of open files allows this worker %d flows at a time; raise it with "
                "ulimit -n, or LimitNOFILE for systemd",
                most,
            )
        self._most = most
        wanted = self._lacking.to_ask()
        if wanted is not None:
            channel.post(Unserved(wanted))
        if self._draining and not self._drained and self._context.active == 0:
            self._drained = True
            channel.post(Drained())

    def stop_accepting(self) -> None:
        """Leave all clients to others, from now on; flows go on."""
        self._accepts = False
        for listener in self._listeners.values():
            self._context.reactor.guard(listener.stop_accepting)

    def close(self) -> None:
        for listener in self._listeners.values():
            listener.close(0)
        self._listeners.clear()
        self._tcp.close()
        self._udp.close()

    def _act(self, message: ToWorker, descriptor: int | None) -> None:
        match message:
            case Open(route):
                self._open(route, descriptor)
            case Update(route):
                self._update(route)
            case Close(frontend, grace):
                self._close(frontend, grace)
            case LocalClients():
                if self._context.locality.update(message):
                    for listener in tuple(self._listeners.values()):
                        self.handle(Update(listener.route), None)
            case Drain():
                self._draining = True
                self.stop_accepting()
                self.report()
            case Settings():
                raise AssertionError("settings come first, and once")

    def _open(self, route: Route, descriptor: int | None) -> None:
        kernel = self._context.reactor.kernel
        if descriptor is None:
            self._lacking.add(route.frontend)
            return
        self._lacking.discard(route.frontend)
        if route.frontend in self._listeners:
            kernel.close(descriptor)
            self._update(route)
            return
        try:
            sock = kernel.adopt(descriptor)
        except OSError:
            kernel.close(descriptor)
            raise
        try:
            listener = self._listener(sock, route)
        except BaseException:
            sock.close()
            raise
        self._add(listener)
        if not self._accepts:
            listener.stop_accepting()

    def _listener(self, sock: socket.socket, route: Route) -> Listener:
        match route.frontend.protocol:
            case protocols.TCP:
                return TcpListener(self._context, self._tcp, sock, route)
            case protocols.UDP:
                return UdpListener(self._context, self._udp, self._new_intake, sock, route)
            case other:
                raise ValueError(f"a worker cannot serve {other}")

    def _update(self, route: Route) -> None:
        listener = self._take(route.frontend)
        if listener is not None:
            try:
                listener.update(route)
            finally:
                self._add(listener)
            self._retain(route.owner)

    def _retain(self, owner: ServicePortName) -> None:
        """Let the balancer forget backends that no frontend of the port has any more."""
        backends: set[Backend] = set()
        for frontend in self._frontends.get(owner, ()):
            route = self._listeners[frontend].route
            backends.update(route.backends, route.local_backends or ())
        self._context.ports.get(owner).balancer.retain(backends)

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
        self._lacking.discard(frontend)
        listener = self._take(frontend)
        if listener is not None:
            listener.close(grace)
