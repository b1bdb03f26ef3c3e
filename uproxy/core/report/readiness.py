"""Why this node does not serve as it should: the kind of each reason, and its text.

Anybody who reaches the health address may see the kinds. The texts have names of Services,
addresses and errors, so they are shown on the metrics address only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from uproxy.core.report.status import FrontendState, FrontendStatus


class ReasonKind(StrEnum):
    """What is wrong, in the words of the health address."""

    DRAINING = "draining"
    STARTING = "starting"
    CLUSTER = "cluster not followed"
    WORKER = "worker not serving as it should"
    FRONTEND = "frontend not open"
    NOT_APPLIED = "changes not carried out"
    DELAYED = "changes not served in time"
    NODE = "node not eligible"
    LAST_KNOWN = "last-known state served"
    MACHINE = "addresses of this machine not known"
    UNEXPECTED = "unexpected error"
    HTTP_SERVER = "health or metrics address not open"


class Reason(NamedTuple):
    kind: ReasonKind
    text: str


def kinds(reasons: Iterable[Reason]) -> list[str]:
    """A line for each kind, with the number of its reasons."""
    counts = Counter(reason.kind for reason in reasons)
    return [f"{kind}: {counts[kind]}" for kind in ReasonKind if kind in counts]


def texts(reasons: Iterable[Reason]) -> list[str]:
    """A line for each reason."""
    return [reason.text for reason in reasons]


def not_ready(
    frontends: Iterable[FrontendStatus], *, waiting_for: Sequence[str], draining: bool
) -> Iterator[Reason]:
    """Why clients are not served as they should be; nothing: ready.

    At the start, which is `waiting_for` something, it is not said of each frontend that it waits
    too.

    A paused frontend is as it should be. One that was lost to another Service, or whose address
    another node has, is not an outage of this node either.
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
