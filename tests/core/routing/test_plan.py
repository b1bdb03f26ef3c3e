"""Plans: the steps from what is open to what should be, in an order in which no step hinders
another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.route import (
    Announced,
    Backend,
    Frontend,
    FrontendKind,
    Route,
    ServicePortName,
)
from uproxy.core.routing.plan import Actual, Plan, plan

OWNER = ServicePortName("default", "web", "", "TCP")
A, B = Backend("10.0.0.1", 80), Backend("10.0.0.2", 80)
VIP = Frontend("TCP", "192.0.2.7", 80)
OTHER_PORT = Frontend("TCP", "192.0.2.7", 81)
NODE_PORT = Frontend("TCP", "0.0.0.0", 30080)
DNS = Frontend("UDP", "192.0.2.8", 53)


def route(frontend: Frontend, *backends: Backend, **fields: Any) -> Route:
    kind = FrontendKind.NODE_PORT if frontend == NODE_PORT else FrontendKind.LOAD_BALANCER_IP
    return Route(frontend=frontend, owner=OWNER, kind=kind, backends=backends, **fields)


def serving(frontend: Frontend, *backends: Backend) -> Actual:
    return Actual(route(frontend, *(backends or (A,))), paused=False)


def paused(frontend: Frontend) -> Actual:
    return Actual(route(frontend), paused=True)


def plan_for(
    desired: list[Route], actual: list[Actual], *, synced: bool = True, **options: Any
) -> Plan:
    """A plan that looks at every frontend."""
    wanted = {each.frontend: each for each in desired}
    held = {each.route.frontend: each for each in actual}
    frontends = options.pop("frontends", wanted.keys() | held.keys())
    if options.pop("claiming", False):
        options["vips"] = vips(wanted)
    return plan(wanted, held, frontends=frontends, synced=synced, **options)


def is_vip(each: Route) -> bool:
    return each.kind is FrontendKind.LOAD_BALANCER_IP


def vips(desired: dict[Frontend, Route]) -> dict[str, set[Frontend]]:
    found: dict[str, set[Frontend]] = {}
    for frontend, each in desired.items():
        if is_vip(each):
            found.setdefault(frontend.address, set()).add(frontend)
    return found


@pytest.mark.parametrize(
    ("desired", "actual", "expected"),
    [
        pytest.param([], [], Plan(), id="nothing"),
        pytest.param([route(VIP, A)], [], Plan(open=(route(VIP, A),)), id="open"),
        pytest.param([route(VIP)], [], Plan(open=(route(VIP),)), id="open, to be paused at once"),
        pytest.param([], [serving(VIP)], Plan(close=(VIP,)), id="close"),
        pytest.param([], [paused(VIP)], Plan(close=(VIP,)), id="close what is paused"),
        pytest.param([route(VIP, A)], [serving(VIP, A)], Plan(), id="as it should be"),
        pytest.param([route(VIP)], [paused(VIP)], Plan(), id="paused, as it should be"),
        pytest.param(
            [route(VIP, A, B)],
            [serving(VIP, A)],
            Plan(update=(route(VIP, A, B),)),
            id="other backends: in place, never bound again",
        ),
        pytest.param(
            [route(VIP, reason="no ready endpoints")],
            [paused(VIP)],
            Plan(update=(route(VIP, reason="no ready endpoints"),)),
            id="another reason while paused",
        ),
        pytest.param([route(VIP)], [serving(VIP)], Plan(pause=(route(VIP),)), id="no backend left"),
        pytest.param(
            [route(VIP, A)], [paused(VIP)], Plan(resume=(route(VIP, A),)), id="a backend again"
        ),
        pytest.param(
            [route(VIP, local_backends=(A,))],
            [paused(VIP)],
            Plan(resume=(route(VIP, local_backends=(A,)),)),
            id="a backend for outside clients alone",
        ),
        pytest.param(
            [route(VIP, A)],
            [Actual(route(VIP, A), paused=True)],
            Plan(resume=(route(VIP, A),)),
            id="resuming had failed",
        ),
        pytest.param(
            [route(DNS)],
            [serving(DNS)],
            Plan(pause=(route(DNS),)),
            id="UDP is paused too (by closing its socket)",
        ),
        pytest.param(
            [route(VIP, A), route(DNS, A), route(NODE_PORT)],
            [serving(OTHER_PORT), paused(DNS), serving(NODE_PORT)],
            Plan(
                close=(OTHER_PORT,),
                pause=(route(NODE_PORT),),
                resume=(route(DNS, A),),
                open=(route(VIP, A),),
            ),
            id="several at once",
        ),
    ],
)
def test_steps(desired: list[Route], actual: list[Actual], expected: Plan) -> None:
    found = plan_for(desired, actual)
    assert found == expected
    assert bool(found) is (expected != Plan())


@pytest.mark.parametrize(
    ("desired", "actual", "expected"),
    [
        pytest.param([], [serving(VIP)], Plan(), id="absence means nothing"),
        pytest.param([route(VIP)], [serving(VIP)], Plan(), id="no endpoints mean nothing"),
        pytest.param([route(VIP, A)], [], Plan(open=(route(VIP, A),)), id="open"),
        pytest.param(
            [route(VIP, B)], [serving(VIP, A)], Plan(update=(route(VIP, B),)), id="update"
        ),
        pytest.param([route(VIP, A)], [paused(VIP)], Plan(resume=(route(VIP, A),)), id="resume"),
    ],
)
def test_before_all_sources_have_listed(
    desired: list[Route], actual: list[Actual], expected: Plan
) -> None:
    assert plan_for(desired, actual, synced=False, claimed={"192.0.2.7", "192.0.2.9"}) == expected


@pytest.mark.parametrize(
    ("desired", "actual", "expected"),
    [
        pytest.param([route(VIP, A)], [], Plan(), id="not opened"),
        pytest.param(
            [route(VIP, A)], [paused(VIP)], Plan(update=(route(VIP, A),)), id="not resumed"
        ),
        pytest.param(
            [route(VIP, A)], [Actual(route(VIP, A), paused=True)], Plan(), id="nothing new to say"
        ),
        pytest.param([], [paused(VIP)], Plan(close=(VIP,)), id="closed nevertheless"),
        pytest.param(
            [route(VIP)], [serving(VIP)], Plan(pause=(route(VIP),)), id="paused nevertheless"
        ),
    ],
)
def test_waiting_for_a_retry(desired: list[Route], actual: list[Actual], expected: Plan) -> None:
    assert plan_for(desired, actual, blocked={VIP}) == expected


def test_only_the_given_frontends_are_looked_at() -> None:
    desired, actual = [route(VIP, A), route(DNS, A)], [serving(NODE_PORT), serving(OTHER_PORT)]
    found = plan_for(desired, actual, frontends=[VIP, OTHER_PORT, VIP])
    assert found == Plan(close=(OTHER_PORT,), open=(route(VIP, A),))


def test_an_equal_route_needs_no_step_though_it_is_another_object() -> None:
    assert not plan_for([route(VIP, A)], [Actual(route(VIP, A), paused=False)])


class TestAddresses:
    @pytest.mark.parametrize(
        ("desired", "actual", "claimed", "expected"),
        [
            pytest.param([route(VIP, A)], [], set(), Plan(claim=("192.0.2.7",)), id="claim"),
            pytest.param([route(VIP, A)], [], {"192.0.2.7"}, Plan(), id="held already"),
            pytest.param(
                [route(VIP, A), route(OTHER_PORT, A)],
                *([], set(), Plan(claim=("192.0.2.7",))),
                id="once for two frontends",
            ),
            pytest.param([route(NODE_PORT, A)], [], set(), Plan(), id="not for NodePorts"),
            pytest.param(
                [], [serving(VIP)], {"192.0.2.7"}, Plan(release=("192.0.2.7",)), id="release"
            ),
            pytest.param(
                [route(OTHER_PORT, A)],
                *([serving(VIP), serving(OTHER_PORT)], {"192.0.2.7"}, Plan()),
                id="still needed by another frontend",
            ),
            pytest.param(
                [], [], {"192.0.2.7"}, Plan(release=("192.0.2.7",)), id="left over from a crash"
            ),
            pytest.param([route(VIP)], [paused(VIP)], {"192.0.2.7"}, Plan(), id="kept in a pause"),
        ],
    )
    def test_claims_and_releases(
        self, desired: list[Route], actual: list[Actual], claimed: set[str], expected: Plan
    ) -> None:
        found = plan_for(desired, actual, claimed=claimed, claiming=True)
        assert Plan(claim=found.claim, release=found.release) == expected

    def test_none_by_default(self) -> None:
        assert plan_for([route(VIP, A)], []).claim == ()

    def test_no_release_under_a_listener_that_stays(self) -> None:
        found = plan_for([], [serving(VIP)], claimed={"192.0.2.7"}, frontends=[])
        assert found == Plan()

    @pytest.mark.parametrize("announced", [Announced.L2, Announced.ROUTES])
    def test_a_release_under_a_listener_that_is_announced(self, announced: Announced) -> None:
        """The address has become one that moves, or has no backend. Its listeners stay open."""
        wanted = route(VIP, announced=announced)
        found = plan_for([wanted], [serving(VIP)], claimed={VIP.address})
        assert found == Plan(release=(VIP.address,), pause=(wanted,))

    def test_no_release_if_another_listener_there_is_not_announced(self) -> None:
        wanted = [route(VIP, A, announced=Announced.L2), route(OTHER_PORT, A)]
        found = plan_for(wanted, [serving(VIP), serving(OTHER_PORT)], claimed={VIP.address})
        assert found.release == ()

    def test_reserved_ones_are_given_up_before_all_is_listed(self) -> None:
        """Otherwise the sources might never list, since the API server may be at one of them."""
        claimed = {"192.0.2.7", "192.0.2.8"}
        found = plan_for(
            [],
            [serving(VIP), serving(DNS)],
            claimed=claimed,
            synced=False,
            claiming=True,
            reserved={"192.0.2.7"},
        )
        assert found == Plan(close=(VIP,), release=("192.0.2.7",))
        found = plan_for([], [], claimed=claimed, synced=False, reserved={"192.0.2.8"})
        assert found == Plan(release=("192.0.2.8",))

    def test_a_reserved_one_that_is_needed_is_kept(self) -> None:
        """The ClusterIP of the API server is one, if this node reaches the API server there."""
        found = plan_for(
            [route(VIP, A)],
            [serving(VIP, A)],
            claimed={"192.0.2.7"},
            synced=False,
            claiming=True,
            reserved={"192.0.2.7"},
        )
        assert found == Plan()

    def test_no_claim_for_frontends_that_wait_alone(self) -> None:
        found = plan_for([route(VIP, A)], [], blocked={VIP}, claiming=True)
        assert found == Plan()
        found = plan_for([route(VIP, A), route(OTHER_PORT, A)], [], blocked={VIP}, claiming=True)
        assert found == Plan(claim=("192.0.2.7",), open=(route(OTHER_PORT, A),))


class Executor:
    """Does what a plan says, in memory; `fails` decides about each step that may fail."""

    def __init__(self, actual: list[Actual], claimed: set[str]) -> None:
        self.actual = {each.route.frontend: each for each in actual}
        self.claimed = set(claimed)
        self.blocked: set[Frontend] = set()
        self.touched: set[Frontend] = set()
        self.taken_away: list[object] = []

    def apply(self, steps: Plan, fails: Callable[[], bool]) -> None:
        self.blocked.clear()
        for frontend in steps.close:
            self.touched.add(frontend)
            self.taken_away.append(frontend)
            del self.actual[frontend]
        self.move_addresses(steps, fails)
        self.change_listeners(steps, fails)
        for each in steps.open:
            assert each.frontend not in self.actual
            missing = is_vip(each) and each.frontend.address not in self.claimed
            if not missing and not self.failed(each, fails):
                self.set(each, paused=not each.usable)
            else:
                self.blocked.add(each.frontend)

    def move_addresses(self, steps: Plan, fails: Callable[[], bool]) -> None:
        for address in steps.release:
            assert address not in {each.address for each in self.actual}, "listeners go first"
            self.taken_away.append(address)
            if not fails():
                self.claimed.remove(address)
        self.claimed.update(address for address in steps.claim if not fails())

    def change_listeners(self, steps: Plan, fails: Callable[[], bool]) -> None:
        for each in steps.pause:
            self.taken_away.append(each.frontend)
            assert not self.actual[each.frontend].paused
            self.set(each, paused=True)
        for each in steps.update:
            self.set(each, paused=self.actual[each.frontend].paused)
        for each in steps.resume:
            assert self.actual[each.frontend].paused
            self.set(each, paused=self.failed(each, fails))

    def failed(self, each: Route, fails: Callable[[], bool]) -> bool:
        self.touched.add(each.frontend)
        if fails():
            self.blocked.add(each.frontend)
        return each.frontend in self.blocked

    def set(self, each: Route, *, paused: bool) -> None:
        self.touched.add(each.frontend)
        self.actual[each.frontend] = Actual(each, paused)


frontends = st.sampled_from([VIP, OTHER_PORT, NODE_PORT, DNS])
backends = st.sampled_from([(), (A,), (A, B)])
desireds = st.dictionaries(frontends, backends).map(
    lambda chosen: {f: route(f, *chosen[f]) for f in chosen}
)
actuals = st.dictionaries(frontends, st.tuples(backends, st.booleans())).map(
    lambda chosen: [Actual(route(f, *b), p or not b) for f, (b, p) in chosen.items()]
)
claims = st.sets(st.sampled_from(["192.0.2.7", "192.0.2.8", "192.0.2.9"]))


def next_plan(
    executor: Executor, desired: dict[Frontend, Route], *, synced: bool = True, retry: bool = True
) -> Plan:
    return plan(
        desired,
        executor.actual,
        frontends=desired.keys() | executor.actual.keys(),
        synced=synced,
        blocked=set() if retry else executor.blocked,
        claimed=executor.claimed,
        vips=vips(desired),
    )


@given(desireds, actuals, claims, st.data())
def test_it_gets_there_whatever_fails_on_the_way(
    desired: dict[Frontend, Route], actual: list[Actual], claimed: set[str], data: st.DataObject
) -> None:
    executor = Executor(actual, claimed)
    flip = st.booleans()
    for _ in range(3):
        executor.apply(next_plan(executor, desired, retry=data.draw(flip)), lambda: data.draw(flip))
    executor.apply(next_plan(executor, desired), lambda: False)
    assert not next_plan(executor, desired), "planning what is done gives nothing to do"
    assert executor.actual == {f: Actual(r, not r.usable) for f, r in desired.items()}
    assert executor.claimed == {f.address for f, r in desired.items() if is_vip(r)}


@given(desireds, actuals, claims)
def test_what_needs_no_change_is_never_touched(
    desired: dict[Frontend, Route], actual: list[Actual], claimed: set[str]
) -> None:
    executor = Executor(actual, claimed)
    right = {
        f
        for f, each in executor.actual.items()
        if f in desired
        if each == Actual(desired[f], not desired[f].usable)
    }
    executor.apply(next_plan(executor, desired), lambda: False)
    assert not executor.touched & right


@given(desireds, actuals, claims, st.data())
def test_nothing_is_taken_away_before_sync(
    desired: dict[Frontend, Route], actual: list[Actual], claimed: set[str], data: st.DataObject
) -> None:
    executor = Executor(actual, claimed)
    for _ in range(2):
        executor.apply(next_plan(executor, desired, synced=False), lambda: data.draw(st.booleans()))
    assert executor.taken_away == []
    for each in actual:
        assert each.paused or not executor.actual[each.route.frontend].paused


@given(desireds, actuals, claims)
def test_a_frontend_is_in_one_step_at_most(
    desired: dict[Frontend, Route], actual: list[Actual], claimed: set[str]
) -> None:
    found = next_plan(Executor(actual, claimed), desired)
    routes = (*found.pause, *found.update, *found.resume, *found.open)
    all_of_them = [*found.close, *(each.frontend for each in routes)]
    assert len(all_of_them) == len(set(all_of_them))
