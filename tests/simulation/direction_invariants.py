"""What is true of each direction of a TCP flow whenever the process waits.

The numbers are those of the tables in uproxy/dataplane/tcp/epoll_mover.py and ring_mover.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.simulation.world import Violation
from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.tcp.epoll_direction import EpollDirection
from uproxy.dataplane.tcp.flow import Flow
from uproxy.dataplane.tcp.ring_direction import RingDirection


def check(flows: Iterable[Flow], reactor: Reactor) -> None:
    """Raises Violation."""
    for flow in flows:
        if flow.mover is None:
            continue
        for direction in (flow.mover.from_client, flow.mover.from_backend):
            if isinstance(direction, EpollDirection):
                broken = of_epoll(direction, reactor)
            else:
                assert isinstance(direction, RingDirection)
                broken = of_ring(direction)
            if broken:
                raise Violation(f"{direction!r} breaks its invariants {broken}")


def of_epoll(each: EpollDirection, reactor: Any) -> list[int]:
    """Numbers of the invariants that do not hold; 0: a relayed flow has a direction closed."""
    if each.closed:
        return [0]
    pending, splice = each.pending, each.splice
    plain = not (each.peer_blocked or each.eof or each.deferred or each.held is not None or splice)
    may_copy = bool(each.shared.splice_after) or not each.splices
    holds = (
        each.held is None or splice is None or not splice.pending,
        not (each.eof and pending),
        each.peer.peer_blocked == bool(pending),
        each.slow_path or (plain and may_copy),
        not each.deferred or (not (pending or each.eof) and each._resume in reactor._deferred),
        each.reported <= each.total - pending,
    )
    return [number for number, held in enumerate(holds, 1) if not held]


def of_ring(each: RingDirection) -> list[int]:
    """The same. That bytes do not overtake each other (1) shows in what receivers get."""
    if each.closed:
        return [0]
    plain = not (each._waiting or each.eof or each.detaching)
    holds = (
        True,
        not each.held or each.detaching,
        each.slow_path or plain,
        not each.eof or not (each.armed or each.pending),
        each.detaching == each.peer.detaching,
        each.reported <= each.total - each.pending,
    )
    return [number for number, held in enumerate(holds, 1) if not held]
