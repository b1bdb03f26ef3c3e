"""UDP frontends: a listener sorts what clients send into flows.

With a ring datagrams go through it (ring_udp). Without one, sockets are level-triggered: one with
more than its share of datagrams is simply asked again after all others. A datagram and its reply
then take 12 to 15 us of CPU, 3 to 5 of them outside of the kernel; recvmmsg through ctypes saved
0.4 us, and only while the queue was full, so it is not used.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import cast

from uproxy.core.flows.counters import DropReason
from uproxy.core.flows.udp_table import stale
from uproxy.core.protocols import UDP
from uproxy.core.route import Route
from uproxy.dataplane.context import Context, allowed_sources
from uproxy.dataplane.udp.engine import UdpEngine
from uproxy.dataplane.udp.flow import BATCH, Address, Key, UdpFlow
from uproxy.dataplane.udp.ring_flow import RingIntake, RingUdpFlow
from uproxy.net import pktinfo

__all__ = ["UdpEngine", "UdpListener"]

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes. All clients of a frontend share this queue; the kernel's default takes about 250 small
datagrams or a single large one, less than may arrive while the worker does something else."""

_SO_RCVBUFFORCE = 33


class UdpListener:
    """Serves one frontend on a bound, non-blocking socket, which belongs to it from here on."""

    def __init__(
        self, context: Context, engine: UdpEngine, sock: socket.socket, route: Route
    ) -> None:
        self.context = context
        self.engine = engine
        self.route = route
        self.sock = sock
        self.port = context.port(route.owner)
        self.preserves = context.preserves(route)
        self._allowed = allowed_sources(route)
        self.flows: dict[Key, UdpFlow] = {}
        self._accepting = True
        self._wildcard = route.frontend.address in ("0.0.0.0", "::")
        self._receive: Callable[[memoryview], tuple[int, Key]] = sock.recvfrom_into
        if self._wildcard:
            pktinfo.enable(sock)
            self._receive = self._receive_with_local_address
        _enlarge(sock)
        self.intake: RingIntake | None = None
        self._flow: type[UdpFlow] = UdpFlow
        if engine.datagrams is not None:
            self._flow = RingUdpFlow
            self.intake = RingIntake(engine.datagrams, self, wildcard=self._wildcard)
        else:
            context.reactor.register(sock.fileno(), self._on_event, select.EPOLLIN)
        context.capacity.opened(UDP)
        engine.circles.opened(route.frontend.address, route.frontend.port)

    def update(self, route: Route) -> None:
        """Use another route for what comes from now on.

        Flows to backends that no longer serve are closed, as are all when the frontend has passed
        to another Service. Policies, affinity and allowed sources concern new flows only.
        """
        moved = route.owner != self.route.owner
        self.route = route
        self.port = self.context.port(route.owner)
        self.preserves = self.context.preserves(route)
        self._allowed = allowed_sources(route)
        flows = list(self.flows.values())
        self.engine.end(flows if moved else stale(flows, frozenset(route.serving)))

    def stop_accepting(self) -> None:
        """Begin no new flows; those that exist go on."""
        self._accepting = False

    def close(self, grace: float = 0) -> None:
        """Close the socket and, whatever `grace` says, all flows: replies would have no way."""
        if self.sock.fileno() < 0:
            return
        for flow in list(self.flows.values()):
            flow.close()
        if self.intake is not None:
            self.intake.close()
        self.context.reactor.unregister(self.sock.fileno())
        self.sock.close()
        self.context.capacity.closed(UDP)
        self.engine.circles.closed(self.route.frontend.address, self.route.frontend.port)

    def _on_event(self, mask: int) -> None:
        receive, flows, buffer = self._receive, self.flows, self.engine.buffer
        for _ in range(BATCH):
            try:
                size, key = receive(buffer)
            except BlockingIOError:
                return
            except OSError:
                return  # An error that was queued on the socket; reading it has cleared it.
            flow = flows.get(key) or self._admit(key)
            if flow is not None:
                flow.to_backend(buffer[:size])

    def _receive_with_local_address(self, buffer: memoryview) -> tuple[int, Key]:
        size, control, _, client = self.sock.recvmsg_into([buffer], pktinfo.SPACE)
        return size, (client, pktinfo.local_address(control))

    def _admit(self, key: Key) -> UdpFlow | None:
        if self._wildcard:
            client, local = cast("tuple[Address, bytes]", key)
        else:
            client, local = cast("Address", key), b""
        return self.admit(key, client, local)

    def admit(self, key: Key, client: Address, local: bytes) -> UdpFlow | None:
        """Begin a flow, or count why not."""
        circles, port = self.engine.circles, client[1]
        if (port == circles.port or port in circles.frontends) and self.engine.goes_round(
            client[:2]
        ):
            reason: DropReason | None = DropReason.LOOP
        else:
            reason = self._refusal(client[0])
        if reason is not None:
            self.port.counters.drop(reason)
            return None
        flow = self._flow(self, key, client, pktinfo.reply_from(local))
        return flow if flow.begin() else None

    def _refusal(self, client: str) -> DropReason | None:
        if not self._accepting:
            return DropReason.DRAINING
        if self._allowed is not None and client not in self._allowed:
            return DropReason.SOURCE_REFUSED
        if not self.context.backends_for(self.route, client):
            return DropReason.NO_BACKEND
        if not self.engine.make_room():
            return DropReason.CAPACITY
        return None


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        # Without CAP_NET_ADMIN the kernel caps it at net.core.rmem_max.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
