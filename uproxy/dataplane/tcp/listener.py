"""A TCP listener, which accepts clients and decides which of them are admitted."""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
from _socket import socket as Socket
from typing import Final

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.capacity import BACKLOG
from uproxy.core.flows.counters import DropReason
from uproxy.core.flows.flow_record import Ender, FlowRecord, Phase
from uproxy.core.protocols import TCP
from uproxy.core.route import Route
from uproxy.dataplane.context import Context
from uproxy.dataplane.locality import allowed_sources
from uproxy.dataplane.tcp.dialer import NON_BLOCKING
from uproxy.dataplane.tcp.flow import Flow
from uproxy.dataplane.tcp.flows import TcpFlows
from uproxy.dataplane.tcp.header_flow import HeaderFlow
from uproxy.dataplane.tcp.resets import reset

ACCEPT_BATCH: Final = 64
"""Connections accepted in one go, about 2 ms of work, before flows are served."""

_REFUSED: Final = Ender.PROXY + Phase.CONNECTING

_CLIENT_ERRORS: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
        errno.ETIMEDOUT,
    }
)
"""Errors of a client's connection that came before it was accepted. accept(2) reports them in
place of a socket (see its page, "Error handling"), and the next call gets the next client."""

logger = logging.getLogger(__name__)


class TcpListener:
    """Serves one frontend on a listening socket that the control process has opened.

    The socket may be paused and resumed from outside, by shutdown() and listen(): then it accepts
    nothing until the next `update`.
    """

    def __init__(
        self, context: Context, all_flows: TcpFlows, sock: socket.socket, route: Route
    ) -> None:
        self.context = context
        self.dialer = all_flows.dialer
        self.movers = all_flows.movers
        self._all_flows = all_flows
        self._shortage = all_flows.shortage
        self.flows: set[Flow] = set()
        self._sock = sock
        self._fd = sock.fileno()
        self._accept = sock._accept  # type: ignore[attr-defined]
        self._family = int(sock.family)
        self._socket = context.reactor.kernel.new_socket
        self._batch = 1
        """Connections to accept next time. Finding out that no more wait costs as much as
        accepting one, so it is only tried where more are likely."""
        self._accepting = False
        self._stopped = False
        self._closed = False
        self._grace: asyncio.TimerHandle | None = None
        # More are accepted in one go than may be waiting, and one that epoll has reported may be
        # gone by then: accept(2) would block the whole worker.
        sock.setblocking(False)
        # Inherited by what is accepted: an urgent byte keeps its place in the stream.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        all_flows.listeners.add(self)
        self.update(route)
        context.capacity.opened(TCP)

    def __repr__(self) -> str:
        return f"<TcpListener {self.route.frontend}, {len(self.flows)} flows>"

    def update(self, route: Route) -> None:
        """Serve new clients by another route; flows stay as they are."""
        # While everything is still as the old route says: the new one has no backend, so clients
        # that wait would be reset (test_who_waits_is_served_before_the_listener_is_paused).
        if self._accepting and not route.usable:
            self.context.reactor.guard(self._accept_waiting)
        self.route = route
        self.port = self.context.ports.get(route.owner)
        """Balancer and counters, of new flows."""
        # Most routes admit every client to all backends: then its address need not be looked at.
        locality = self.context.locality
        self._preserves_outside = locality.preserves_outside(route)
        self._preserves_pods = locality.preserves_pods(route)
        plain = (
            route.allowed_sources is None
            and route.local_backends is None
            and not self._preserves_pods
        )
        self._unrestricted = route.backends if plain else ()
        self._flow = Flow if route.proxy_protocol is None else HeaderFlow
        self._allowed = allowed_sources(route)
        if route.usable:
            self.resume()

    def resume(self) -> None:
        """Accept clients, unless stopped for good."""
        if self._accepting or self._stopped:
            return
        try:
            self.context.reactor.register(self._fd, self._ready, select.EPOLLIN)
            self._accepting = True
        except OSError as error:  # Out of memory, or over fs.epoll.max_user_watches.
            logger.error("%r cannot be registered with epoll: %s; retrying", self, error)
            self._wait_for_resources()

    def stop_accepting(self) -> None:
        """Accept no client any more; flows go on. Clients that connect wait in the queue for
        another process that has the socket."""
        self._stopped = True
        self._suspend()

    def close(self, grace: float) -> None:
        """Close the socket and give the flows `grace` seconds to end, then reset them. May be
        called again, to shorten the grace."""
        if not self._closed:
            # Before the socket is closed: the control process has a copy, so close(2) would not end
            # the registration (epoll(7)), and afterwards there is no descriptor to end it with.
            self.stop_accepting()
            self._closed = True
            self._sock.close()
            self.context.capacity.closed(TCP)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if self.flows and grace > 0:
            self._grace = self.context.reactor.call_later(grace, self._abort_flows)
        else:
            self._abort_flows()

    def abort(self) -> None:
        """Called by the reactor when a bug has made accepting fail: try again a little later."""
        self._wait_for_resources()

    def flow_ended(self, flow: Flow) -> None:
        """One of `flows` is over."""
        self.flows.discard(flow)
        context = self.context
        context.capacity.tcp -= 1
        if context.queue.waiting:
            context.queue.resume_if_room()
        if self._closed and not self.flows:
            self._gone()

    def _ready(self, mask: int) -> None:
        capacity = self.context.capacity
        room = ACCEPT_BATCH
        if capacity.tcp + capacity.udp > capacity.growth_check_above:
            room = capacity.tcp_room(self.context.reactor.now)
            if capacity.note_growth():
                self.dialer.loops.inspect()
        # A shortage may pass although all flows stay, so a timer ends the wait. A full table has
        # room only when a flow ends, which the queue hears of.
        if self._shortage.active or (room <= 0 and capacity.is_short):
            self._wait_for_resources()
            return
        if room <= 0:
            self._suspend()
            self.context.queue.wait(self.resume)
            return
        accept, batch = self._accept, self._batch
        try:
            for _ in range(min(room, batch)):
                fd, address = accept()
                self._begin(self._socket(self._family, NON_BLOCKING, 0, fd), address)
            # As many as expected: perhaps more wait. The registration is level-triggered, so if
            # there are more, the next poll reports the socket again, after other flows' events.
            self._batch = min(2 * batch, ACCEPT_BATCH)
        except BlockingIOError:
            self._batch = max(batch // 2, 1)
        except OSError as error:
            self._could_not_accept(error)

    def _accept_waiting(self) -> None:
        """Admit all clients that have connected, by the present route: the socket is about to be
        paused, which resets the clients that are still in its queue."""
        self._batch = ACCEPT_BATCH
        for _ in range(BACKLOG // ACCEPT_BATCH):
            self._ready(select.EPOLLIN)
            if not self._accepting or self._batch < ACCEPT_BATCH:
                return

    def _begin(self, sock: Socket, address: tuple[str, int]) -> None:
        """Admit a client, or refuse it by RST before any backend hears of it."""
        if self._unrestricted:
            flow = self._flow(self, sock, address, self._unrestricted)
        elif (admitted := self._admit(sock, address)) is not None:
            flow = admitted
        else:
            return
        try:
            self.dialer.dial(flow)
        except Exception:
            # Only this client is concerned. Raised any further, it would have the reactor abort the
            # listener, and those behind it would wait.
            logger.exception("%r could not be started", flow)
            flow.abort()

    def _admit(self, sock: Socket, address: tuple[str, int]) -> Flow | None:
        route, client = self.route, address[0]
        outside = self.context.locality.is_outside(route, client)
        backends = (route.local_backends or ()) if outside else route.backends
        if self._allowed is not None and client not in self._allowed:
            reason = DropReason.SOURCE_REFUSED
        elif not backends:
            reason = DropReason.NO_BACKEND
        else:
            flow = self._flow(self, sock, address, backends)
            if outside:
                flow.preserving = self._preserves_outside
            elif self._preserves_pods and self.context.locality.is_pod_here(client):
                flow.preserving = flow.from_pod = True
            return flow
        self.port.counters.drop(reason)
        reset(sock)
        self._record_refusal(address, reason)
        return None

    def _record_refusal(self, address: tuple[str, int], reason: DropReason) -> None:
        records, now, route = self.context.records, self.context.reactor.now, self.route
        records.number += 1
        record = FlowRecord(
            number=records.number,
            start=now + records.clock_offset,
            duration=0.0,
            client=address[0],
            client_port=address[1],
            frontend=route.frontend,
            owner=route.owner,
            backend=None,
            client_bytes=0,
            backend_bytes=0,
            dial_time=0.0,
            attempts=0,
            code=_REFUSED,
            reason=reason.value,
        )
        records.add(record)

    def _could_not_accept(self, error: OSError) -> None:
        if error.errno in RESOURCE_ERRORS:
            if not self._shortage.active:
                self.port.counters.drop(DropReason.DESCRIPTORS)
            self.context.queue.descriptor_refused()
            self._wait_for_resources()
        elif error.errno == errno.EINVAL:
            # Paused, until the next update: after shutdown(2) the socket does not listen. Meanwhile
            # epoll would report EPOLLHUP at each poll, which cannot be switched off (epoll_ctl(2)).
            self._suspend()
        elif error.errno not in _CLIENT_ERRORS:
            logger.error("%r cannot accept: %s; retrying", self, error)
            self._wait_for_resources()

    def _wait_for_resources(self) -> None:
        """Accept no client while descriptors or memory are short: clients wait in the kernel's
        queue. Each poll would report them, as the registration is level-triggered, so it ends."""
        self._suspend()
        self._shortage.begin()
        self._shortage.resume_after(self)

    def _suspend(self) -> None:
        if self._accepting:
            self._accepting = False
            self.context.reactor.unregister(self._fd)

    def _abort_flows(self) -> None:
        for flow in list(self.flows):
            flow.kill()
        self._gone()

    def _gone(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._all_flows.listeners.discard(self)
