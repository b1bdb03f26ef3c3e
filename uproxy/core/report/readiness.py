"""Why this node does not serve as it should: the kind of each reason, and its text.

The kinds are shown to everyone who reaches the health address. The texts contain names of Services,
addresses and errors, so they are shown at the metrics address only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from uproxy.core.report.status import FrontendState, FrontendStatus


class ReasonKind(StrEnum):
    """What is wrong. The values are what the health address shows."""

    DRAINING = "draining"
    STARTING = "starting"
    CLUSTER = "cluster not watched"
    WORKER = "worker not serving as it should"
    FRONTEND = "frontend not open"
    NOT_APPLIED = "changes not applied"
    DELAYED = "changes not served in time"
    NODE = "node not eligible"
    LAST_KNOWN = "last-known state served"
    MACHINE = "addresses of this machine not known"
    UNEXPECTED = "unexpected error"
    PORTS_TAKEN = "ports in use by another process"
    SETTINGS = "settings not in effect"
    HTTP_SERVER = "health or metrics address not open"


class Reason(NamedTuple):
    """One reason why something is not as it should be."""

    kind: ReasonKind
    text: str


def kinds(reasons: Iterable[Reason]) -> list[str]:
    """A line for each kind that occurs, with the number of its reasons."""
    counts = Counter(reason.kind for reason in reasons)
    return [f"{kind}: {counts[kind]}" for kind in ReasonKind if kind in counts]


def count_kinds(reasons: Iterable[Reason]) -> dict[str, int]:
    """How many different reasons there are of each kind that occurs."""
    return dict(Counter(kind.value for kind, _ in set(reasons)))


def texts(reasons: Iterable[Reason]) -> list[str]:
    """A line for each reason."""
    return [reason.text for reason in reasons]


def not_ready(
    frontends: Iterable[FrontendStatus], *, waiting_for: Sequence[str], draining: bool
) -> Iterator[Reason]:
    """Why clients are not served as they should be; nothing: this node is ready.

    While the start is `waiting_for` something, frontends are not listed: they all wait for it.

    A paused frontend is as it should be. One that another Service has, or whose address another
    node has, is no outage of this node either.
    """
    if draining:
        yield Reason(ReasonKind.DRAINING, "draining: no new connections are accepted")
    if waiting_for:
        yield Reason(ReasonKind.STARTING, f"waiting for {' and '.join(waiting_for)}")
        return
    for each in frontends:
        if each.state in (FrontendState.FAILED, FrontendState.PENDING):
            owner = f"{each.owner.namespace}/{each.owner.name}"
            text = f"{owner}: {each.frontend} is not open: {each.reason}"
            yield Reason(ReasonKind.FRONTEND, text)
