"""From what is to what should be: the ordered steps.

Levels are compared, never events, so that a plan which failed half-way is simply made again.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from uproxy.core.route import Frontend, Route


class Actual(NamedTuple):
    """A frontend that we hold, as its listener is now."""

    route: Route
    paused: bool
    """Clients are refused. A UDP frontend has no socket then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps to be taken in the order of the fields.

    Ports are freed before others take them; an address is kept until its last listener is closed,
    and is there before its first one is opened. A frontend is in at most one step.
    """

    close: tuple[Frontend, ...] = ()
    release: tuple[str, ...] = ()
    """Addresses."""
    claim: tuple[str, ...] = ()
    """Addresses."""
    pause: tuple[Route, ...] = ()
    """Give the listener its new route, and refuse clients: nothing is usable."""
    update: tuple[Route, ...] = ()
    """Give the listener its new route; it goes on as it was, paused or not."""
    resume: tuple[Route, ...] = ()
    """Give the listener its new route, and serve clients again."""
    open: tuple[Route, ...] = ()
    """Hold the frontend; paused at once if the route is not usable."""

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.close
            or self.release
            or self.claim
            or self.pause
            or self.update
            or self.resume
            or self.open
        )

    def without(self, frontends: Container[Frontend]) -> Plan:
        """The same, but these frontends are neither opened nor resumed."""
        opened = tuple(route for route in self.open if route.frontend not in frontends)
        resumed = tuple(route for route in self.resume if route.frontend not in frontends)
        return replace(self, open=opened, resume=resumed)


def plan(
    desired: Mapping[Frontend, Route],
    actual: Mapping[Frontend, Actual],
    *,
    frontends: Iterable[Frontend],
    synced: bool,
    blocked: Container[Frontend] = frozenset(),
    claimed: Set[str] = frozenset(),
    vips: Mapping[str, Collection[Frontend]] = MappingProxyType({}),
    reserved: Container[str] = frozenset(),
) -> Plan:
    """What to do about `frontends`; nothing else is looked at, nor touched.

    `blocked` frontends have failed and wait for their retry: they are not opened or resumed, but
    still closed, paused and updated. `claimed` addresses are those that we hold; `vips` are those
    that have to be claimed before one of their frontends can be opened.

    Until all sources have listed, absence means nothing: nothing is closed, paused or released.
    """
    steps = _Steps()
    looked_at = sorted(set(frontends))
    for frontend in looked_at:
        want, have = desired.get(frontend), actual.get(frontend)
        if want is None:
            if have is not None and (synced or frontend.address in reserved):
                steps.close.append(frontend)
        elif have is not None:
            steps.change(want, have, synced=synced, blocked=frontend in blocked)
        elif frontend not in blocked:
            steps.open.append(want)
    return Plan(
        close=tuple(steps.close),
        release=_releases(vips, claimed, actual, steps.close, None if synced else reserved),
        claim=_claims(looked_at, vips, claimed, blocked),
        pause=tuple(steps.pause),
        update=tuple(steps.update),
        resume=tuple(steps.resume),
        open=tuple(steps.open),
    )


class _Steps:
    """Those that concern listeners."""

    def __init__(self) -> None:
        self.close: list[Frontend] = []
        self.pause: list[Route] = []
        self.update: list[Route] = []
        self.resume: list[Route] = []
        self.open: list[Route] = []

    def change(self, want: Route, have: Actual, *, synced: bool, blocked: bool) -> None:
        """What to do about a frontend that we have and want."""
        if have.paused and want.usable and not blocked:
            self.resume.append(want)
        elif have.paused or want.usable:
            if want is not have.route and want != have.route:
                self.update.append(want)
        elif synced:
            self.pause.append(want)


def _claims(
    frontends: Iterable[Frontend],
    vips: Mapping[str, Collection[Frontend]],
    claimed: Container[str],
    blocked: Container[Frontend],
) -> tuple[str, ...]:
    """Addresses that some of these frontends need now, and that we don't hold."""
    needed = {
        each.address
        for each in frontends
        if each.address not in claimed
        and each in vips.get(each.address, ())
        and each not in blocked
    }
    return tuple(sorted(needed))


def _releases(
    vips: Mapping[str, Collection[Frontend]],
    claimed: Set[str],
    actual: Iterable[Frontend],
    closing: Collection[Frontend],
    only: Container[str] | None,
) -> tuple[str, ...]:
    """Claimed addresses that nothing wants and where no listener remains; `only` these, or all."""
    candidates = set(claimed - vips.keys())
    if only is not None:
        candidates = {address for address in candidates if address in only}
    if candidates:
        closed = set(closing)
        candidates -= {frontend.address for frontend in actual if frontend not in closed}
    return tuple(sorted(candidates))
