"""A defect, as a change of source text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A text that is in a module once, and what replaces it."""

    module: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    name: str
    says: str
    changes: tuple[Change, ...]


def one(name: str, says: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name, says, (Change(module, old, new),))


RING = "uring.ring"
RETURN_PATHS = "dataplane.return_paths"
EPOLL_DIRECTION = "dataplane.tcp.epoll_direction"
RING_DIRECTION = "dataplane.tcp.ring_direction"
SUBMISSION_QUEUE = "uring.submission_queue"
REACTOR, FLOW, UDP = "dataplane.reactor", "dataplane.tcp.flow", "dataplane.udp.ring_flow"
