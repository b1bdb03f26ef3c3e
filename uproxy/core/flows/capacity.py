"""How many flows a worker may have, and how many of each protocol.

If TCP and UDP shared all descriptors without limits, a flood of one would lock out the other. So
each protocol that has a listener is owed a quarter of the flows, and both share the rest.
"""

from __future__ import annotations

from typing import Final

from uproxy.core.protocols import SERVED, TCP, UDP

BACKLOG: Final = 4096
"""Connections that may wait for a worker to accept them; the kernel caps it at
net.core.somaxconn (4096 by default since Linux 5.4). A full queue makes clients retransmit their
SYN, a second late, so it should only fill while a worker is being replaced."""

PER_TCP_FLOW: Final = 2
"""Descriptors of a TCP flow: the client's and the backend's. A UDP flow has one, since all clients
share that of the listener."""

_RESERVE: Final = 256
"""Descriptors that flows leave free: for the channel, epoll, the ring, and all listeners that come
with one message (200)."""

_MOST_PIPES: Final = 256
"""The most pipes. Each has two descriptors and up to 1 MiB of kernel memory."""

_MOST_IDLE: Final = 256
"""The most sockets of UDP flows that have ended which wait for other flows: a worker gets up to
25,000 new flows a second, and each socket waits for 10 ms (dataplane/udp/idle_sockets.py)."""

_LEAST: Final = 8
"""If flows have fewer descriptors than this, they are not the cause of a shortage."""

_LIMIT_LASTS: Final = 0.5
"""Seconds for which the limit that a refused descriptor has shown is believed."""

_PORTS_LAST: Final = 10.0
"""The same for the limit of UDP flows that a refused port has shown. The kernel takes a millisecond
to find the last free port of 28,000, so the limit should not be reached often."""

_UNCHECKED: Final = 64
"""Flows that may begin before room for them has to be computed again."""

_GROWTH: Final = 4
"""A quarter more flows than before, and at least 64 more, are worth a look at where they come
from."""


def share_of_flows(max_flows: int, workers: int, worker: int) -> int:
    """How many flows one of the workers may have, if all of them together may have `max_flows`."""
    return max(1, max_flows // workers + (worker < max_flows % workers))


class Capacity:
    """The number of flows of a worker, and how many more may begin.

    Its owner keeps `tcp` and `udp` up to date. `max_flows` is what the user allows, `descriptors`
    what RLIMIT_NOFILE allows. If the latter is wrong, because the whole machine is short of them or
    something else has taken them, the first refused descriptor shows it: see `ran_out`.
    """

    __slots__ = ("_descriptors", "_for_flows", "_growth_mark", "_limit_met", "_limit_until",
                 "_listening", "_max_flows", "_most_tcp", "_most_udp", "_ports_met",
                 "_ports_until", "check_above", "flow_limit", "growth_check_above", "max_idle",
                 "max_pipes", "tcp", "udp")  # fmt: skip

    def __init__(self, max_flows: int, descriptors: int) -> None:
        self.tcp = 0
        """TCP flows alive."""
        self.udp = 0
        """UDP flows alive."""
        self.flow_limit = 0
        """The most flows that fit at a time, even if all of them are TCP."""
        self.check_above = 0
        """Up to this number of flows, 64 more of either protocol have room. Above it the room has
        to be asked for. Comparing one number costs the data path less than computing the room."""
        self.growth_check_above = 0
        """The same, but also above this number there are many more flows than before."""
        usable = descriptors - min(_RESERVE, descriptors // 4)
        self.max_pipes = min(_MOST_PIPES, usable // (8 * 2))
        """The most pipes for splice, which take an eighth of the descriptors."""
        self.max_idle = min(_MOST_IDLE, usable // 16)
        """The most sockets that wait for UDP flows to come."""
        self._max_flows = max_flows
        self._descriptors = usable - 2 * self.max_pipes - self.max_idle
        self._listening: dict[str, int] = dict.fromkeys(SERVED, 0)
        self._limit_met: int | None = None
        """How many descriptors flows had when another one was refused; None: no recent refusal."""
        self._limit_until = 0.0
        self._ports_met: int | None = None
        """How many UDP flows there may be since there was no port for another one; None: no recent
        refusal."""
        self._ports_until = 0.0
        self._growth_mark = _UNCHECKED
        self._divide()

    def allow(self, max_flows: int) -> None:
        """From now on the user allows so many flows. None ends because of it."""
        self._max_flows = max_flows
        self._divide()

    def opened(self, protocol: str) -> None:
        """Note that a listener was opened, which has a descriptor."""
        self._listening[protocol] += 1
        self._divide()

    def closed(self, protocol: str) -> None:
        """Note that a listener was closed."""
        self._listening[protocol] -= 1
        self._divide()

    def tcp_room(self, now: float) -> int:
        """How many TCP flows may begin; none if 0 or less. `now` is monotonic, in seconds."""
        self._forget_limit(now)
        left = (self._for_flows - self._taken()) // PER_TCP_FLOW
        return min(self._most_tcp - self.tcp, self._max_flows - self.tcp - self.udp, left)

    def udp_room(self, now: float) -> int:
        """How many UDP flows may begin; if 0 or less, none unless others end."""
        # For each flow that displaces another one, so without calls that have nothing to do.
        if self._limit_met is not None or self._ports_met is not None:
            self._forget_limit(now)
        left = self._for_flows - PER_TCP_FLOW * self.tcp - self.udp
        return min(self._most_udp - self.udp, self._max_flows - self.tcp - self.udp, left)

    def ran_out(self, now: float) -> None:
        """Note that a descriptor was refused. For half a second, what flows have now is the most
        that they may have."""
        if self._taken() >= _LEAST:
            self._limit_met = self._taken()
            self._limit_until = now + _LIMIT_LASTS
            self._divide()

    def ports_ran_out(self, now: float) -> None:
        """Note that the kernel had no port for another UDP socket. For ten seconds there may be an
        eighth fewer UDP flows than now, since other programs of this machine need ports as well."""
        if self.udp >= _LEAST:
            self._ports_met = self.udp - self.udp // 8
            self._ports_until = now + _PORTS_LAST
            self._divide()

    def note_growth(self) -> bool:
        """Whether there are many more flows than when this was true last."""
        grown = self.tcp + self.udp > self._growth_mark
        if grown:
            self._set_growth_mark(self._next_growth_mark())
        return grown

    def note_decline(self) -> None:
        """Call this now and then. If far fewer flows are left, growth counts from there."""
        if 2 * self._next_growth_mark() <= self._growth_mark:
            self._set_growth_mark(self._next_growth_mark())

    @property
    def reduced_flow_limit(self) -> int:
        """`flow_limit` if descriptors allow fewer flows than the user does; otherwise 0."""
        return self.flow_limit if self.flow_limit < self._max_flows else 0

    @property
    def is_short(self) -> bool:
        """Whether a descriptor was refused lately. It passes without any flow having to end."""
        return self._limit_met is not None

    @property
    def is_short_of_ports(self) -> bool:
        """Whether there was no port for a UDP flow lately."""
        return self._ports_met is not None

    def _next_growth_mark(self) -> int:
        flows = self.tcp + self.udp
        return flows + max(_UNCHECKED, flows // _GROWTH)

    def _set_growth_mark(self, mark: int) -> None:
        self._growth_mark = mark
        self.growth_check_above = min(self.check_above, mark)

    def _taken(self) -> int:
        """Descriptors that flows have."""
        return PER_TCP_FLOW * self.tcp + self.udp

    def _forget_limit(self, now: float) -> None:
        if self._limit_met is not None and now >= self._limit_until:
            self._limit_met = None
            self._divide()
        if self._ports_met is not None and now >= self._ports_until:
            self._ports_met = None
            self._divide()

    def _divide(self) -> None:
        """Divide the descriptors between TCP and UDP."""
        descriptors = max(self._descriptors - sum(self._listening.values()), PER_TCP_FLOW)
        self.flow_limit = min(self._max_flows, descriptors // PER_TCP_FLOW)
        if self._limit_met is not None:
            descriptors = min(descriptors, self._limit_met)
        self._for_flows = descriptors
        flows = min(self._max_flows, descriptors // PER_TCP_FLOW)
        owed = flows // 4
        to_tcp = owed if self._listening[TCP] else 0
        to_udp = owed if self._listening[UDP] else 0
        self._most_tcp = min(self._max_flows - to_udp, (descriptors - to_udp) // PER_TCP_FLOW)
        self._most_udp = min(self._max_flows - to_tcp, descriptors - PER_TCP_FLOW * to_tcp)
        if self._ports_met is not None:
            self._most_udp = min(self._most_udp, self._ports_met)
        self.check_above = min(self._most_tcp, self._most_udp, flows) - _UNCHECKED
        self._set_growth_mark(self._growth_mark)
