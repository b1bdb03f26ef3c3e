"""What a worker does: it serves what the control process says, and reports what it counts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from uproxy.core.protocols import TCP, UDP
from uproxy.core.route import Backend, Frontend, Route, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.count_reports import CountReports
from uproxy.dataplane.engine import Engine
from uproxy.dataplane.record_answers import RecordAnswers
from uproxy.dataplane.tcp.flows import TcpFlows
from uproxy.dataplane.tcp.listener import TcpListener
from uproxy.dataplane.udp.flows import UdpFlows
from uproxy.dataplane.udp.listener import UdpListener
from uproxy.dataplane.unserved import UnservedFrontends
from uproxy.net.channel import Channel
from uproxy.net.messages import (
    Close,
    Drain,
    Drained,
    LocalClients,
    Open,
    RecordsWanted,
    Report,
    Settings,
    ToWorker,
    Unserved,
    Update,
)

log = logging.getLogger(__name__)

_SIGN_OF_LIFE: Final = 2
"""One report in this many is sent even if it has nothing to say."""


class Listener(Protocol):
    """Serves one frontend on its socket, by whatever protocol."""

    @property
    def route(self) -> Route:
        """The present one."""

    def update(self, route: Route) -> None:
        """Serve new flows by another route."""

    def stop_accepting(self) -> None:
        """Begin no new flows; those that exist go on."""

    def close(self, grace: float) -> None:
        """Close the socket, and end the flows that still exist after `grace` seconds."""


class Worker:
    """Carries out what the control process says, and reports what was counted."""

    def __init__(self, channel: Channel[ToWorker], context: Context, engine: Engine) -> None:
        self._channel = channel
        self._context = context
        self._tcp = TcpFlows(context, engine.movers)
        self._udp = UdpFlows(context)
        self._new_listener: dict[str, Callable[[socket.socket, Route], Listener]] = {
            TCP: partial(TcpListener, context, self._tcp),
            UDP: partial(UdpListener, context, self._udp, engine.new_intake),
        }
        """How to serve each protocol that Services may have (core/protocols.py)."""
        self._listeners: dict[Frontend, Listener] = {}
        self._frontends: dict[ServicePortName, set[Frontend]] = {}
        self._unsteered: set[Frontend] = set()
        """Frontends at which a client may come to any worker, though it has session affinity."""
        self._count_reports = CountReports(context.ports)
        self._record_answers = RecordAnswers(channel, context.records, context.reactor)
        self._unserved = UnservedFrontends()
        self._unchanged = 0
        """Reports in a row that had nothing to say."""
        self._accepts = True
        self._draining = False
        self._drained = False
        self._flow_limit = 0
        """As it was last reported."""

    @property
    def has_unserved(self) -> bool:
        """Whether sockets that were lost before may be on their way again."""
        return bool(self._unserved)

    def handle(self, message: ToWorker, descriptor: int | None) -> None:
        """Act on one message. A failure concerns what it is about, and nothing else."""
        try:
            self._act(message, descriptor)
        except Exception:
            log.exception("cannot handle the message %s", type(message).__name__)
            if isinstance(message, Open | Update):
                self._unserved.add(message.route.frontend)

    def report(self) -> None:
        """Say what has changed since the last report, or now and then that nothing has."""
        self._context.capacity.note_decline()
        channel = self._channel
        channel.flush()
        if channel.wants_write:
            # The control process does not read. What is counted meanwhile is reported later, in one
            # message, so that the channel never holds more than the first.
            return
        self._report_counts()
        logged = self._context.records.take_log()
        if logged is not None:
            channel.post(logged)
        wanted = self._unserved.next_request()
        if wanted is not None:
            channel.post(Unserved(wanted))
        if self._draining and not self._drained and self._context.active == 0:
            # Behind the last counts, after which the control process may end this process.
            self._drained = True
            channel.post(Drained())

    def _report_counts(self) -> None:
        # First, since movers count the bytes of TCP flows by themselves until this is called.
        self._tcp.collect()
        self._udp.collect()
        self._context.read_clock()
        self._context.read_local_ports()
        changes = self._count_reports.changes(self._frontends)
        flow_limit = self._context.capacity.reduced_flow_limit
        busy = (name for name, _ in changes)
        self._context.ports.forget_clients(busy, self._context.reactor.now)
        paths = self._context.return_paths.take_news()
        backends = self._count_reports.backends(self._context.records.clock_offset)
        same = not changes and not backends and not any(paths) and flow_limit == self._flow_limit
        self._unchanged = self._unchanged + 1 if same else 0
        if self._unchanged % _SIGN_OF_LIFE == 0:
            active = self._context.active
            self._channel.post(Report(changes, active, flow_limit, *paths, backends))
        self._flow_limit = flow_limit

    def stop_accepting(self) -> None:
        """Begin no new flows from now on; those that exist go on."""
        self._accepts = False
        for listener in self._listeners.values():
            self._context.reactor.guard(listener.stop_accepting)

    def close(self) -> None:
        for listener in self._listeners.values():
            listener.close(0)
        self._listeners.clear()
        self._record_answers.close()
        # This also closes listeners that are no longer among these, but have flows in their grace.
        self._tcp.close()
        self._udp.close()
        self._context.return_paths.close()

    def _act(self, message: ToWorker, descriptor: int | None) -> None:
        match message:
            case Open(route, steered):
                self._note_steering(route.frontend, steered=steered)
                self._open(route, descriptor)
            case Update(route, steered):
                self._note_steering(route.frontend, steered=steered)
                self._update(route)
            case Close(frontend, grace):
                self._close(frontend, grace)
            case LocalClients():
                changed = self._context.locality.update(message)
                self._context.return_paths.update(message)
                if changed:
                    # A copy, since an update takes the listener out and puts it back.
                    for frontend, listener in tuple(self._listeners.items()):
                        steered = frontend not in self._unsteered
                        self.handle(Update(listener.route, steered), None)
            case Drain():
                self._draining = True
                self.stop_accepting()
                # At once, since a worker without flows has drained by this.
                self.report()
            case RecordsWanted():
                self._record_answers.answer(message)
            case Settings():
                self._change(message)

    def _change(self, settings: Settings) -> None:
        """The configuration was reloaded."""
        context = self._context
        context.settings = settings
        context.reactor.allow_busy_poll(settings.busy_poll)
        context.capacity.allow(settings.max_flows)
        context.queue.resume_if_room()
        context.records.log_every(settings.flow_log_every)
        self._tcp.set_timeouts(settings)
        self._udp.set_timeout(settings.udp_timeout)

    def _open(self, route: Route, descriptor: int | None) -> None:
        kernel = self._context.reactor.kernel
        if descriptor is None:
            self._unserved.add(route.frontend)
            return
        self._unserved.discard(route.frontend)
        if route.frontend in self._listeners:
            # It was sent twice. Another listener would not have the flows of the first
            # (test_a_frontend_that_is_sent_twice_keeps_its_flows).
            kernel.close(descriptor)
            self._update(route)
            return
        try:
            sock = kernel.adopt(descriptor)
        except OSError:
            # No socket has taken it, so nothing else would close it.
            kernel.close(descriptor)
            raise
        try:
            listener = self._new_listener[route.frontend.protocol](sock, route)
        except BaseException:
            sock.close()
            raise
        self._add(listener)
        if not self._accepts:
            listener.stop_accepting()

    def _update(self, route: Route) -> None:
        listener = self._take(route.frontend)
        if listener is not None:
            # Out and in again, since the route may have another owner. Back in even if it fails:
            # otherwise no message would find the listener, not even the one that closes it.
            try:
                listener.update(route)
            finally:
                self._add(listener)
            self._retain(route.owner)

    def _retain(self, owner: ServicePortName) -> None:
        """Forget backends that no frontend of the port has any more."""
        backends: set[Backend] = set()
        for frontend in self._frontends.get(owner, ()):
            route = self._listeners[frontend].route
            backends.update(route.backends, route.local_backends or ())
        if owner in self._frontends:
            self._context.ports.get(owner).balancer.retain(backends)
        self._context.return_paths.retain(owner, backends)

    def _note_steering(self, frontend: Frontend, *, steered: bool) -> None:
        if steered:
            self._unsteered.discard(frontend)
        else:
            self._unsteered.add(frontend)

    def _add(self, listener: Listener) -> None:
        route = listener.route
        self._listeners[route.frontend] = listener
        frontends = self._frontends.setdefault(route.owner, set())
        frontends.add(route.frontend)
        # All frontends of a port share its pins.
        steered = self._unsteered.isdisjoint(frontends)
        self._context.ports.get(route.owner).balancer.steered = steered

    def _take(self, frontend: Frontend) -> Listener | None:
        listener = self._listeners.pop(frontend, None)
        if listener is not None:
            owner = listener.route.owner
            self._frontends[owner].discard(frontend)
            if not self._frontends[owner]:
                del self._frontends[owner]
        return listener

    def _close(self, frontend: Frontend, grace: float) -> None:
        self._unserved.discard(frontend)
        self._unsteered.discard(frontend)
        listener = self._take(frontend)
        if listener is not None:
            self._retain(listener.route.owner)
            listener.close(grace)
