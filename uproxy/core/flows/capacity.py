"""How many flows a worker may have, and how many of each protocol.

If TCP and UDP shared everything without limits, a flood of one would lock out the other. So each is
owed a quarter of what there is, as long as it is served at all, and they share the rest.
"""

from __future__ import annotations

from typing import Final

from uproxy.core.protocols import SERVED, TCP, UDP

BACKLOG: Final = 4096
"""Connections that may wait for a worker to accept them; the kernel caps it at
net.core.somaxconn (4096 by default since Linux 5.4). A full queue makes clients retransmit their
SYN, a second late, so it should only fill while a worker is being replaced."""

PER_TCP_FLOW: Final = 2
"""Descriptors: client and backend. A UDP flow has one, since clients share that of the listener."""

_RESERVE: Final = 256
"""Descriptors that flows leave free: for the channel, epoll, the ring, and all listeners that come
with one message (200)."""

_MOST_PIPES: Final = 256
"""Each has two descriptors and up to 1 MiB of kernel memory."""

_LEAST: Final = 8
"""Descriptors below which flows are not to blame for a lack."""

_BELIEVED: Final = 0.5
"""Seconds for which a limit holds that was met and not known."""

_AMPLE: Final = 64
"""Flows that may begin before anybody has to count again."""

_GROWTH: Final = 4
"""A quarter more flows than before, and 64 at least, are so many more that it is worth a look where
they come from."""


class Capacity:
    """The flows of a worker, in number. Its owner keeps `tcp` and `udp` up to date.

    `descriptors` are those that the process may have, from RLIMIT_NOFILE. Where that was wrong (the
    whole machine is short, or something else took them), the first flow that gets none says so.
    """

    __slots__ = ("_descriptors", "_for_flows", "_listening", "_mark", "_max_flows",
                 "_met", "_most_tcp", "_most_udp", "_until", "ample", "calm", "flows", "pipes",
                 "tcp", "udp")  # fmt: skip

    def __init__(self, max_flows: int, descriptors: int) -> None:
        self.tcp = 0
        """TCP flows alive."""
        self.udp = 0
        """UDP flows alive."""
        self.flows = 0
        """The most flows of both protocols together, should half of them be TCP."""
        self.ample = 0
        """With so many flows or fewer, there is room for 64 of either protocol."""
        self.calm = 0
        """The same, and there are not many more than before."""
        usable = descriptors - min(_RESERVE, descriptors // 4)
        self.pipes = min(_MOST_PIPES, usable // (8 * 2))
        """The most pipes for splice: an eighth of the descriptors."""
        self._max_flows = max_flows
        self._descriptors = usable - 2 * self.pipes
        self._listening: dict[str, int] = dict.fromkeys(SERVED, 0)
        self._met: int | None = None
        self._until = 0.0
        self._mark = _AMPLE
        self._divide()

    def opened(self, protocol: str) -> None:
        """A listener has come, with its descriptor."""
        self._listening[protocol] += 1
        self._divide()

    def closed(self, protocol: str) -> None:
        """A listener has gone."""
        self._listening[protocol] -= 1
        self._divide()

    def tcp_room(self, now: float) -> int:
        """How many TCP flows may begin; 0 or less: none."""
        self._relax(now)
        left = (self._for_flows - self._taken()) // PER_TCP_FLOW
        return min(self._most_tcp - self.tcp, self._max_flows - self.tcp - self.udp, left)

    def udp_room(self, now: float) -> int:
        """How many UDP flows may begin; 0 or less: none, unless others end."""
        self._relax(now)
        left = self._for_flows - self._taken()
        return min(self._most_udp - self.udp, self._max_flows - self.tcp - self.udp, left)

    def ran_out(self, now: float) -> None:
        """A descriptor was refused: what flows have now is the most that they can have."""
        if self._taken() >= _LEAST:
            self._met = self._taken()
            self._until = now + _BELIEVED
            self._divide()

    def grown(self) -> bool:
        """Whether there are many more flows than before. Says so once."""
        grown = self.tcp + self.udp > self._mark
        if grown:
            self._set_mark(self._next_mark())
        return grown

    def settle(self) -> None:
        """Now and then: where flows have become few, that is what more are compared to."""
        if 2 * self._next_mark() <= self._mark:
            self._set_mark(self._next_mark())

    @property
    def most(self) -> int:
        """`flows`, where that is fewer than was asked for; else 0."""
        return self.flows if self.flows < self._max_flows else 0

    @property
    def short(self) -> bool:
        """Whether that holds. It will not last, and no flow has to end for it to be over."""
        return self._met is not None

    def _next_mark(self) -> int:
        flows = self.tcp + self.udp
        return flows + max(_AMPLE, flows // _GROWTH)

    def _set_mark(self, mark: int) -> None:
        self._mark = mark
        self.calm = min(self.ample, mark)

    def _taken(self) -> int:
        return PER_TCP_FLOW * self.tcp + self.udp

    def _relax(self, now: float) -> None:
        if self._met is not None and now >= self._until:
            self._met = None
            self._divide()

    def _divide(self) -> None:
        descriptors = max(self._descriptors - sum(self._listening.values()), PER_TCP_FLOW)
        self.flows = min(self._max_flows, descriptors // PER_TCP_FLOW)
        if self._met is not None:
            descriptors = min(descriptors, self._met)
        self._for_flows = descriptors
        flows = min(self._max_flows, descriptors // PER_TCP_FLOW)
        owed = flows // 4
        to_tcp = owed if self._listening[TCP] else 0
        to_udp = owed if self._listening[UDP] else 0
        self._most_tcp = min(self._max_flows - to_udp, (descriptors - to_udp) // PER_TCP_FLOW)
        self._most_udp = min(self._max_flows - to_tcp, descriptors - PER_TCP_FLOW * to_tcp)
        self.ample = min(self._most_tcp, self._most_udp, flows) - _AMPLE
        self._set_mark(self._mark)
