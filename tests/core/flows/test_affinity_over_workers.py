"""Session affinity as a client sees it that may come to any of several workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.flows.balancing import BACKENDS, NAMES, balancer, route
from uproxy.core.flows.balancer import Balancer
from uproxy.core.flows.ejection import FAILURES
from uproxy.core.route import Backend, BalancerKind

TIMEOUT = 10


class Step(NamedTuple):
    """One client begins flows, all at once, some time after the step before."""

    after: float
    client: int
    worker: int
    """Where it comes to, if clients are not steered."""
    flows: int
    refused: bool
    """Whether the first backend that is dialed refuses."""


STEPS = st.lists(
    st.builds(
        Step,
        after=st.sampled_from([0.0, 0.5, 4.0, 9.5, 10.0, 12.0, 40.0]),
        client=st.integers(1, 4),
        worker=st.integers(0, 3),
        flows=st.integers(1, 4),
        refused=st.booleans(),
    ),
    max_size=40,
)


class Clients:
    """Clients of one Service port, which is balanced by some workers."""

    def __init__(self, workers: int, kind: BalancerKind, *, steered: bool) -> None:
        self.route = route("abcd", TIMEOUT, kind)
        self.steered = steered
        self.workers = [balancer(number / workers) for number in range(workers)]
        for each in self.workers:
            each.steered = steered
        self.now = 0.0
        self.last: dict[int, tuple[Backend, float]] = {}
        """Where a client was served, and when its last flow there began."""

    def begin(self, step: Step) -> list[Backend]:
        """The backends that the flows of a step end up at."""
        self.now += step.after
        number = step.client if self.steered else step.worker
        worker, client = self.workers[number % len(self.workers)], f"192.0.2.{step.client}"
        picked = [self._pick(worker, client) for _ in range(step.flows)]
        if step.refused:
            for _ in range(FAILURES):
                worker.failed(picked[0], self.route.backends, self.now, "ECONNREFUSED")
            picked = [self._pick(worker, client, [each]) for each in picked]
        for each in picked:
            worker.succeeded(self.route, each, client, self.now)
        return picked

    def _pick(self, worker: Balancer, client: str, tried: Sequence[Backend] = ()) -> Backend:
        picked = worker.pick(self.route, self.route.backends, client, self.now, tried)
        assert picked is not None
        return picked


@pytest.mark.parametrize("kind", BalancerKind)
@pytest.mark.parametrize("workers", [1, 2, 4])
@given(steps=STEPS)
def test_a_client_has_one_backend_within_the_timeout(
    workers: int, kind: BalancerKind, steps: list[Step]
) -> None:
    clients = Clients(workers, kind, steered=True)
    aside = {number: dict[Backend, float]() for number in range(workers)}
    for step in steps:
        got = clients.begin(step)
        assert len(set(got)) == 1, "all flows that began at once"
        [backend] = set(got)
        before, used = clients.last.get(step.client, (backend, 0.0))
        # A backend that has refused a client of this worker is set aside for 30 s at the most.
        avoided = aside[step.client % workers].get(before, float("-inf")) + 30 > clients.now
        if clients.now - used < TIMEOUT and not step.refused and not avoided:
            assert backend == before, (NAMES[backend], NAMES[before])
        if step.refused:
            for each in BACKENDS.values():
                if each != backend:
                    aside[step.client % workers][each] = clients.now
        clients.last[step.client] = (backend, clients.now)


@pytest.mark.parametrize("workers", [2, 4])
@given(steps=STEPS)
def test_a_client_that_is_not_steered_keeps_its_backend_even_after_the_timeout(
    workers: int, steps: list[Step]
) -> None:
    """Workers share no state, so one that has expired the pin cannot choose anew: another one may
    still have the client's pin."""
    clients = Clients(workers, BalancerKind.ROUND_ROBIN, steered=False)
    seen: dict[int, set[Backend]] = {}
    for step in steps:
        seen.setdefault(step.client, set()).update(clients.begin(step._replace(refused=False)))
    assert all(len(backends) == 1 for backends in seen.values())


@pytest.mark.parametrize("kind", [BalancerKind.ROUND_ROBIN, BalancerKind.RANDOM])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_clients_behind_one_address_spread_over_time(workers: int, kind: BalancerKind) -> None:
    """Kubernetes' "should have session affinity timeout work" allows five expiries for a change."""
    clients = Clients(workers, kind, steered=True)
    if kind is BalancerKind.RANDOM:
        numbers = iter([0.1, 0.9, 0.4, 0.1, 0.6])
        for each in clients.workers:
            each._random = lambda: next(numbers)
    seen = [clients.begin(Step(TIMEOUT + 5, 1, 0, 15, refused=False)) for _ in range(6)]
    assert all(len(set(each)) == 1 for each in seen)
    assert {each[0] for each in seen} == set(clients.route.backends)
