"""A UDP listener: it decides which clients are served, and has the table of their flows.

Datagrams do not pass through it. Its intake receives them (epoll_intake.py or ring_intake.py,
whichever the worker uses) and looks up their flow in the table; the flow sends them to its backend,
and replies to the client (flow.py). The intake asks the listener only where there is no flow yet.
"""

from __future__ import annotations

import socket

from uproxy.core.flows.counters import DropReason
from uproxy.core.flows.udp_table import stale
from uproxy.core.protocols import UDP
from uproxy.core.route import Route
from uproxy.dataplane.context import Context
from uproxy.dataplane.locality import allowed_sources
from uproxy.dataplane.udp.flow import UdpFlow
from uproxy.dataplane.udp.flows import UdpFlows
from uproxy.dataplane.udp.intake import NewIntake
from uproxy.dataplane.udp.keys import Address, Key

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes. All clients of a frontend share this queue. The kernel's default takes about 250 small
datagrams or a single large one, less than may arrive while the worker does something else."""

_SO_RCVBUFFORCE = 33


class UdpListener:
    """Serves one frontend on a bound, non-blocking socket, which belongs to it from here on."""

    def __init__(
        self,
        context: Context,
        all_flows: UdpFlows,
        new_intake: NewIntake,
        sock: socket.socket,
        route: Route,
    ) -> None:
        self.context = context
        self.all_flows = all_flows
        self.route = route
        self.sock = sock
        self.port = context.ports.get(route.owner)
        self.preserves_outside = context.locality.preserves_outside(route)
        self.preserves_pods = context.locality.preserves_pods(route)
        self._allowed = allowed_sources(route)
        self.flows: dict[Key, UdpFlow] = {}
        self._accepting = True
        self.wildcard = route.frontend.address in ("0.0.0.0", "::")
        _enlarge(sock)
        self._intake = new_intake(self)
        context.capacity.opened(UDP)
        all_flows.loops.opened(route.frontend.address, route.frontend.port)

    def update(self, route: Route) -> None:
        """Use another route for what comes from now on.

        Flows to backends that no longer serve are closed, as are all when the frontend has passed
        to another Service. Policies, affinity and allowed sources concern new flows only.
        """
        moved = route.owner != self.route.owner
        self.route = route
        self.port = self.context.ports.get(route.owner)
        self.preserves_outside = self.context.locality.preserves_outside(route)
        self.preserves_pods = self.context.locality.preserves_pods(route)
        self._allowed = allowed_sources(route)
        flows = list(self.flows.values())
        self.all_flows.end(flows if moved else stale(flows, frozenset(route.serving)))

    def stop_accepting(self) -> None:
        """Begin no new flows; those that exist go on. Datagrams of new clients
        are dropped and counted, as they cannot wait like connections."""
        self._accepting = False

    def close(self, grace: float = 0) -> None:
        """Close the socket and end all flows, whatever `grace` says: replies leave through the
        socket."""
        if self.sock.fileno() < 0:
            return
        for flow in list(self.flows.values()):
            flow.close()
        # In this order: a receive that is queued for the ring names the socket by its number, and a
        # registration with epoll would outlive our copy of it.
        self._intake.close()
        self.sock.close()
        self.context.capacity.closed(UDP)
        self.all_flows.loops.closed(self.route.frontend.address, self.route.frontend.port)

    def admits(self, client: Address) -> bool:
        """Whether a client may begin a flow. If not, the reason is counted."""
        loops, port = self.all_flows.loops, client[1]
        if (port == loops.port or port in loops.frontends) and self.all_flows.is_loop(client[:2]):
            reason: DropReason | None = DropReason.LOOP
        else:
            reason = self._refusal(client[0])
        if reason is not None:
            self.port.counters.drop(reason)
        return reason is None

    def _refusal(self, client: str) -> DropReason | None:
        if not self._accepting:
            return DropReason.DRAINING
        if self._allowed is not None and client not in self._allowed:
            return DropReason.SOURCE_REFUSED
        if not self.context.locality.backends_for(self.route, client):
            return DropReason.NO_BACKEND
        # Last, as another flow may end for it: not for a client that gets none for other reasons
        # (test_at_capacity_no_flow_ends_for_one_without_a_backend).
        if not self.all_flows.make_room():
            return DropReason.CAPACITY
        return None


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        # Without CAP_NET_ADMIN it is SO_RCVBUF, which the kernel caps at net.core.rmem_max.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
