"""The ordered steps that lead from what is open to what should be.

Two states are compared; no step depends on the change that led to them. So a plan that has failed
half-way needs no undoing: the next plan starts from what is open then.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from uproxy.core.route import Announced, Frontend, Route


class Actual(NamedTuple):
    """A frontend that is open, as its listener is now."""

    route: Route
    paused: bool
    """Whether clients are refused. A UDP frontend has no socket then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps, to be taken in the order of the fields.

    The order frees a port before another frontend takes it, releases an address after its last
    listener is closed, and claims an address before its first listener is opened. A frontend is in
    one step at most.
    """

    close: tuple[Frontend, ...] = ()
    release: tuple[str, ...] = ()
    """Addresses whose claim is given up."""
    claim: tuple[str, ...] = ()
    """Addresses to be claimed."""
    pause: tuple[Route, ...] = ()
    """Give the listener its new route and refuse clients, as no backend is usable."""
    update: tuple[Route, ...] = ()
    """Give the listener its new route. It stays paused, or stays open."""
    resume: tuple[Route, ...] = ()
    """Give the listener its new route and accept clients again."""
    open: tuple[Route, ...] = ()
    """Open the frontend, paused if no backend is usable."""

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
        """The same plan, which neither opens nor resumes these frontends."""
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
    """What to do about `frontends`. No other frontend is looked at.

    `blocked` are frontends that have failed and wait for their retry. They are not opened or
    resumed, but are closed, paused and updated. `claimed` are the addresses that this process has
    claimed, and `vips` those that must be claimed before one of their frontends can be opened.

    Until every source has listed (`synced`), the absence of an object means nothing, so nothing is
    closed, paused or released, except at `reserved` addresses, which belong to another machine.
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
        release=_releases(
            vips,
            claimed,
            (each for each in actual if not _may_lose_its_claim(desired.get(each))),
            steps.close,
            None if synced else reserved,
        ),
        claim=_claims(looked_at, vips, claimed, blocked),
        pause=tuple(steps.pause),
        update=tuple(steps.update),
        resume=tuple(steps.resume),
        open=tuple(steps.open),
    )


class _Steps:
    """The steps of a plan that concern listeners."""

    def __init__(self) -> None:
        self.close: list[Frontend] = []
        self.pause: list[Route] = []
        self.update: list[Route] = []
        self.resume: list[Route] = []
        self.open: list[Route] = []

    def change(self, want: Route, have: Actual, *, synced: bool, blocked: bool) -> None:
        """Decide about a frontend that is open and still wanted."""
        if have.paused and want.usable and not blocked:
            self.resume.append(want)
        elif have.paused or want.usable:
            if want is not have.route and want != have.route:
                self.update.append(want)
        elif synced:
            self.pause.append(want)


def _may_lose_its_claim(route: Route | None) -> bool:
    """Whether an open frontend stays open when the claim of its address is released. For any other
    frontend the claim outlives the listener, so that no client is told that the address is gone."""
    return route is not None and route.announced is not Announced.NEVER


def _claims(
    frontends: Iterable[Frontend],
    vips: Mapping[str, Collection[Frontend]],
    claimed: Container[str],
    blocked: Container[Frontend],
) -> tuple[str, ...]:
    """Addresses that one of these frontends needs now and that are not claimed yet."""
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
    """Claimed addresses that no frontend needs and at which none of the listeners in `actual`
    remains. `only` limits them to some addresses; None means all."""
    candidates = set(claimed - vips.keys())
    if only is not None:
        candidates = {address for address in candidates if address in only}
    if candidates:
        closed = set(closing)
        candidates -= {frontend.address for frontend in actual if frontend not in closed}
    return tuple(sorted(candidates))
