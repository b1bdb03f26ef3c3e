"""A UDP flow: what one client and one backend say to each other, through one local address."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from functools import partial
from math import inf
from typing import Protocol

from uproxy.core.errors import RESOURCE_ERRORS, error_name
from uproxy.core.flows.counters import DropReason
from uproxy.core.flows.flow_record import ENDERS, Ender, FlowRecord, Phase
from uproxy.dataplane.udp.flow_backend import SILENCE, FlowBackend, Reaching
from uproxy.dataplane.udp.keys import Address, Key
from uproxy.net import pktinfo

BATCH = 64
"""Datagrams that one socket passes on by epoll before others are looked at: about 0.5 ms."""

KEPT, KEPT_BYTES = 4, 1500
"""How many datagrams, and how many bytes in all, a flow keeps until its backend has replied.
Queries and the first flight of a handshake fit. A client would repeat them only seconds later,
which is why they are worth keeping; whatever does not fit is lost if the backend refuses."""

CONVERSATION = 4
"""Datagrams that a client sends after a reply until its flow counts as a conversation, even if no
two seconds have passed. A resolver's query has one at most: AAAA, asked along with A."""


class Listening(Reaching, Protocol):
    """What flows, and the intake that begins them, need of their listener."""

    sock: socket.socket
    """Replies leave through it."""
    wildcard: bool
    """Whether the socket is bound to no particular address, so that each flow has its own."""
    flows: dict[Key, UdpFlow]

    def admits(self, client: Address) -> bool:
        """Whether a client may begin a flow. If not, the reason is counted."""


class UdpFlow(FlowBackend):
    """One client (address and port), one local address, and one backend at a time.

    | state       | in the tables | socket    | leaves the state                                |
    |-------------|---------------|-----------|-------------------------------------------------|
    | new         | no            | none      | by `begin`: unconfirmed, or ended               |
    | unconfirmed | yes           | connected | by a reply: confirmed; by a refusal: it moves,  |
    |             |               |           | unconfirmed, or is ended; by `close`: ended     |
    | confirmed   | yes           | connected | by a refusal: it moves, unconfirmed, or is      |
    |             |               |           | ended; by `close`: ended                        |
    | ended       | no            | none      | never; the next datagram begins another flow    |

    `close` is called when the flow has been silent for too long, when another needs its place, when
    its backend no longer serves, and when its listener closes. These hold between two callbacks
    (tests/simulation/udp_invariants.py checks them):

    * A flow is in both tables, that of its listener and that of the worker, or in neither. It has
      an open socket exactly while it is in them.
    * An unconfirmed flow keeps what its client has sent, for the next backend in case this one
      refuses. A confirmed flow keeps nothing, and has no backend that counts as tried.
    * `answered` is never taken back, even when a flow moves and is unconfirmed again. So it goes on
      living as long as before.

    The socket is the flow's own, and connected: so the kernel sorts the replies, and reports
    refusals (ICMP port unreachable) to the flow that they concern.
    """

    __slots__ = (
        "_confirmed",
        "_control",
        "_inspecting",
        "_kept",
        "_key",
        "_replied",
        "_sent_after_reply",
        "answered",
        "began",
        "established",
        "last",
    )

    _listener: Listening

    def __init__(
        self, listener: Listening, key: Key, client: Address, control: pktinfo.Control
    ) -> None:
        super().__init__(listener, client)
        self._key = key
        self._control = control
        """Control data that says which address replies leave from; empty: the address that the
        listener is bound to."""
        self._confirmed = False
        """Whether the present backend has replied."""
        self._inspecting = True
        """Whether `_inspect` is called for the client's datagrams: its backend has not replied, or
        they have not exchanged much. One attribute for both, as it is read for each datagram."""
        self._sent_after_reply = 0
        """Datagrams that the client has sent after a reply, up to CONVERSATION."""
        self._kept: list[bytes] = []
        """What the client has sent, as long as the backend has not replied."""
        self.began = self.last = self._reactor.now
        self._replied = 0.0
        """When a backend has replied first."""
        self.answered = self.established = False

    def begin(self) -> bool:
        """Connect to a backend, and enter the tables. Returns False where that was impossible; the
        reason is counted."""
        reason = self._connect()
        if reason is not None:
            self._record(*self._why(reason))
            return False
        listener = self._listener
        listener.flows[self._key] = self
        listener.all_flows.admit(self, self._reactor.now)
        self.counters.flows += 1
        self.counters.active += 1
        return True

    def to_backend(self, data: memoryview) -> None:
        """Send a datagram of the client, by a system call; if need be to another backend."""
        self.last = self._reactor.now
        try:
            self._send(data)
        except BlockingIOError:
            # Waiting would only make it late. UDP has no promise to keep, and others are waiting.
            self.counters.drop(DropReason.BUFFER_FULL)
            return
        except OSError as error:
            if not self._recover(error, data):
                return
        self.client_bytes += len(data)
        self.client_datagrams += 1
        if self._inspecting:
            self._inspect(data)

    def close(self, ender: Ender = Ender.KILLED, reason: str = "") -> None:
        """End the flow. The client's next datagram begins another. By default the reason is a
        change of what is served."""
        if self._listener.flows.get(self._key) is not self:
            return
        # From here on, another call does nothing.
        del self._listener.flows[self._key]
        self._disconnect()
        self._listener.all_flows.discard(self)
        self.counters.active -= 1
        self._record(ender, reason)

    def abort(self) -> None:
        """The reactor calls this when a callback of the flow has raised."""
        self.close(Ender.PROXY, "error")

    def _why(self, reason: DropReason) -> tuple[Ender, str]:
        """Who has ended a flow without a backend, and more about it."""
        failed = reason is DropReason.DIAL_FAILED
        return ENDERS[reason], error_name(self.error) if failed else reason.value

    def _record(self, ender: Ender, reason: str) -> None:
        """Keep a record."""
        listener, records = self._listener, self._listener.context.records
        if ender in (Ender.BOTH, Ender.KILLED):
            # Whatever the client has sent was passed on; not every protocol has replies.
            code = ender + Phase.COMPLETE
        else:
            code = ender + (Phase.DATA if self.answered else Phase.CONNECTING)
        records.number += 1
        record = FlowRecord(
            records.number, self.began + records.clock_offset, self.last - self.began,
            self._client[0], self._client[1], listener.route.frontend, self._port.name, self.dialed,
            self.total_client_bytes, self.total_backend_bytes,
            (self._replied or records.monotonic()) - self.began, self.attempts, code, reason,
        )  # fmt: skip
        records.add(record)

    def _to_client(self, data: memoryview) -> None:
        """Send a reply, by a system call, through the socket that the client has sent to: it takes
        a reply from no other address and port."""
        listener = self._listener
        self.last = self._reactor.now
        if not self._confirmed:
            self._first_reply(self.last)
        try:
            if self._control:
                listener.sock.sendmsg([data], self._control, 0, self._client)
            else:
                listener.sock.sendto(data, self._client)
        except BlockingIOError:
            self.counters.drop(DropReason.BUFFER_FULL)
        except OSError as error:
            full = error.errno in RESOURCE_ERRORS
            self.counters.drop(DropReason.BUFFER_FULL if full else DropReason.SEND_FAILED)
        else:
            self.backend_bytes += len(data)
            self.backend_datagrams += 1

    def _first_reply(self, now: float) -> None:
        """The present backend is alive."""
        self._confirmed = True
        self._replied = self._replied or now
        self._inspecting = self._sent_after_reply < CONVERSATION
        self._listener.all_flows.table.answer(self)
        # If this backend refuses later, any other one may be tried again. What was sent before this
        # reply must not be sent to that one as well (udp-kept-after-the-reply).
        self._tried.clear()
        self._kept.clear()
        route = self._listener.route
        self._port.balancer.succeeded(route, self.backend, self._client[0], now)
        if self._doubts_from != inf:
            self._doubts_from = inf
            paths = self._listener.context.return_paths
            paths.answered(route.owner, self.backend, self._client[0])

    def _inspect(self, data: memoryview) -> None:
        """Keep a datagram that was sent, or see that the flow has become a conversation."""
        if self._confirmed:
            self._sent_after_reply += 1
            if self._sent_after_reply == CONVERSATION:
                self._inspecting = False
                self._listener.all_flows.table.establish(self)
            return
        if self.last >= self._doubts_from:
            self._doubt(bytes(data))
        if len(self._kept) < KEPT and len(data) + sum(map(len, self._kept)) <= KEPT_BYTES:
            self._kept.append(bytes(data))

    def _doubt(self, data: bytes) -> None:
        """The client has sent again, and the backend, which sees that it is a pod, has not replied.
        Find out whether it would reply to the node."""
        paths, owner = self._listener.context.return_paths, self._listener.route.owner
        if owner in paths.astray:
            self._hide_pod(data)
            return
        # Not with each datagram: some protocols have no replies. Where replies are known to come
        # back, the silence lasts twice as long each time, as every probe disturbs a backend.
        proven = paths.is_proven(self._client[0], self.backend)
        self._doubts_from = self.last + (
            max(SILENCE, self.last - self.began) if proven else SILENCE
        )
        paths.probe(owner, self.backend, self._client[0], partial(self._hide_pod, data))

    def _hide_pod(self, data: bytes) -> None:
        """Replies to the pod go astray: go on with the same backend from the node's address. It
        gets what the client has sent last once more, this time with a way back."""
        if self._sock is None or self._doubts_from == inf:
            return  # The flow has ended, or has had a reply, or another backend by now.
        backend = self.backend
        self._disconnect()
        self._masquerade()
        try:
            self._connect_to(backend)
        except OSError:
            unconnected = self._connect()
            if unconnected is not None:
                self.close(*self._why(unconnected))
                return
        with suppress(OSError):
            self._send(data)

    def _recover(self, error: OSError, data: memoryview | None) -> bool:
        """After a failed call on the backend socket: go on, at another backend if this one has
        refused. Returns whether `data` is on its way after all.

        The kernel reports an ICMP error with the next call on the socket, whichever that is, and
        only once. So ECONNREFUSED never concerns the datagram in hand: an earlier one was refused,
        and this one was not sent at all. Both go to the next backend, the earlier one if it was
        kept, in the order in which the client has sent them.
        """
        if error.errno in RESOURCE_ERRORS:
            self.counters.drop(DropReason.BUFFER_FULL)
            return False
        if error.errno == errno.EMSGSIZE:
            # The path MTU has become smaller, which the kernel heeds from now on, so that the same
            # datagram can be sent in fragments. Or it is too long for any.
            return data is not None and self._send_again(data)
        pending: list[bytes | memoryview] = [*self._kept]
        if data is not None:
            pending.append(data)
        kept, refused = sum(map(len, self._kept)), self._tally
        while self._move(error.errno or 0):
            # Where one of them fails, the next backend gets all of them, again from the first.
            with suppress(OSError):
                for each in pending:
                    self._send(each)
                # They were counted when the first backend got them, and are bytes of this one.
                refused.client_bytes -= kept
                self._tally.client_bytes += kept
                return True
        return False

    def _send_again(self, data: memoryview) -> bool:
        try:
            self._send(data)
        except OSError:
            self.counters.drop(DropReason.SEND_FAILED)
            return False
        return True

    def _move(self, code: int) -> bool:
        """Go from a backend that refuses to another one. The flow ends if there is none."""
        self.counters.drop(DropReason.BACKEND_REFUSED)
        self._blame(self.backend, code)
        # Before it connects: the new socket gets the descriptor of this one if there is no other.
        self._disconnect(moving=True)
        self._confirmed = False
        self._inspecting = True
        reason = self._connect()
        if reason is None:
            return True
        self.close(*self._why(reason))
        return False
