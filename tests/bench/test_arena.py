"""Which peers are measured, in what order, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.wire import figures
from bench.wire.arena import Arena
from bench.wire.cli import chosen, competitors
from bench.wire.measurements import Terms
from bench.wire.peers import Setup, Start, Subject
from bench.wire.places import Place, Service
from bench.wire.processes import Unavailable
from bench.wire.scenarios import CORE, QUICK, SCENARIOS, Scenario
from bench.wire.targets import TARGETS, Target
from tests.netns import kit

HTTP = Service("http", "TCP", Place("127.0.0.1", 1))
NAMES = ("haproxy", "nginx", "uproxy")


class Stage:
    """Peers that only note what happens to them."""

    def __init__(self, unavailable: str = "", failing: str = "") -> None:
        self.started: list[str] = []
        self.measured: list[str] = []
        self.started_before_the_first: list[str] = []
        self.failing = failing
        self.unavailable = unavailable
        self.running: set[str] = set()

    def scenario(self, *, fresh: bool = False, service: str = "http") -> Scenario:
        return Scenario(
            name="test",
            title="Test",
            service=service,
            figures=figures.REQUESTS,
            measure=self._measure,
            peers=NAMES,
            fresh=fresh,
            starts={name: self._start(name) for name in NAMES},
        )

    def _start(self, name: str) -> Start:
        @contextmanager
        def start(setup: Setup) -> Iterator[Subject]:
            if name == self.unavailable:
                raise Unavailable("not installed")
            self.started.append(name)
            self.running.add(name)
            yield Subject(places={"name": Place(name, 0)})
            self.running.discard(name)

        return start

    def _measure(self, subject: Subject, terms: Terms) -> dict[str, float]:
        name = subject.places["name"].host
        if not self.measured:
            self.started_before_the_first = list(self.started)
        assert name in self.running
        self.measured.append(name)
        if name == self.failing:
            raise Unavailable("no luck")
        return {"rate": float(len(self.measured))}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def arena(tmp_path: Path, stack: ExitStack) -> Arena:
    return Arena([HTTP], tmp_path, 1000, False, stack, lambda text: None)


@pytest.fixture
def terms(tmp_path: Path) -> Terms:
    return Terms(seconds=1, directory=tmp_path, stream_bytes=1, idle=1, source_port=1)


def test_peers_take_turns(arena: Arena, terms: Terms) -> None:
    stage = Stage()
    outcome = arena.run(stage.scenario(), NAMES, 2, terms)
    assert stage.started_before_the_first == list(NAMES)
    assert stage.measured == ["haproxy", "nginx", "uproxy", "nginx", "uproxy", "haproxy"]
    assert stage.started == list(NAMES)
    assert outcome.rounds == {
        "haproxy": [{"rate": 1}, {"rate": 6}],
        "nginx": [{"rate": 2}, {"rate": 4}],
        "uproxy": [{"rate": 3}, {"rate": 5}],
    }


def test_peers_are_stopped_at_the_end(arena: Arena, terms: Terms, stack: ExitStack) -> None:
    stage = Stage()
    arena.run(stage.scenario(), NAMES, 1, terms)
    assert stage.running == set(NAMES)
    stack.close()
    assert stage.running == set()


def test_fresh_peers_live_for_one_measurement(arena: Arena, terms: Terms) -> None:
    stage = Stage()
    arena.run(stage.scenario(fresh=True), ["uproxy"], 2, terms)
    assert stage.started == ["uproxy", "uproxy"]
    assert stage.running == set()


def test_unavailable_peer_is_left_out(arena: Arena, terms: Terms) -> None:
    outcome = arena.run(Stage(unavailable="nginx").scenario(), NAMES, 2, terms)
    assert arena.skipped == {"test: nginx": "not installed"}
    assert list(outcome.rounds) == ["haproxy", "uproxy"]


def test_peer_that_one_scenario_cannot_start_takes_part_in_others(
    arena: Arena, terms: Terms
) -> None:
    arena.run(Stage(unavailable="nginx").scenario(), NAMES, 1, terms)
    other = replace(Stage().scenario(), name="other")
    assert list(arena.run(other, NAMES, 1, terms).rounds) == list(NAMES)


def test_scenarios_with_the_same_start_share_a_peer(arena: Arena, terms: Terms) -> None:
    stage = Stage()
    scenario = stage.scenario()
    arena.run(scenario, NAMES, 1, terms)
    arena.run(replace(scenario, name="other"), NAMES, 1, terms)
    assert stage.started == list(NAMES)


def test_failed_round_keeps_its_place(arena: Arena, terms: Terms) -> None:
    outcome = arena.run(Stage(failing="nginx").scenario(), NAMES, 2, terms)
    assert outcome.rounds["nginx"] == [None, None]
    assert arena.failures == ["test: nginx: no luck"] * 2


def test_without_backend_nothing_is_measured(arena: Arena, terms: Terms) -> None:
    with pytest.raises(Unavailable, match="no backend"):
        arena.run(Stage().scenario(service="dns"), NAMES, 2, terms)


def test_without_its_tool_nothing_is_measured(arena: Arena, terms: Terms) -> None:
    stage = Stage()
    with pytest.raises(Unavailable, match="no-such-tool is not installed"):
        arena.run(replace(stage.scenario(), tool="no-such-tool"), NAMES, 2, terms)
    assert stage.started == []


def test_peers_may_have_backends_of_their_own(arena: Arena, terms: Terms) -> None:
    outcome = arena.run(Stage().scenario(service=""), ["uproxy"], 1, terms)
    assert outcome.rounds == {"uproxy": [{"rate": 1}]}


def test_without_namespaces_nothing_is_measured(
    arena: Arena, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "why_not", lambda: "needs root")
    stage = Stage()
    with pytest.raises(Unavailable, match="needs root"):
        arena.run(replace(stage.scenario(), namespaces=True), NAMES, 2, terms)
    assert stage.started == []


def test_without_any_peer_there_is_no_outcome(arena: Arena, terms: Terms) -> None:
    with pytest.raises(Unavailable, match="nobody"):
        arena.run(Stage(unavailable="uproxy").scenario(), ["uproxy"], 2, terms)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([], ["udp-1", "udp-50", "dns"], id="all"),
        pytest.param(["dns"], ["dns"], id="one"),
        pytest.param(["dns", "udp"], ["udp-1", "udp-50", "dns"], id="a family"),
        pytest.param(["udp-5"], [], id="half a word"),
    ],
)
def test_chosen(names: Sequence[str], expected: list[str]) -> None:
    assert chosen(names, ["udp-1", "udp-50", "dns"]) == expected


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        pytest.param(["uproxy"], ["haproxy", "uproxy"], id="the baseline is needed"),
        pytest.param(["nginx", "haproxy"], ["haproxy", "nginx"], id="in the usual order"),
        pytest.param(["go"], [], id="nobody who can"),
    ],
)
def test_competitors(peers: Sequence[str], expected: list[str]) -> None:
    assert competitors(Stage().scenario(), peers) == expected


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.name) for each in SCENARIOS])
def test_baseline_takes_part(scenario: Scenario) -> None:
    assert scenario.baseline in scenario.peers
    assert "uproxy" in scenario.peers


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_target_is_of_what_can_be_measured(target: Target) -> None:
    scenario = next(each for each in SCENARIOS if each.name == target.scenario)
    assert {target.subject, target.peer or target.subject} <= set(scenario.peers)
    assert target.figure in {each.name for each in scenario.figures}


def test_wrk_rows_are_measured_with_one_thread_and_with_two() -> None:
    names = {each.name for each in SCENARIOS if each.tool == "wrk"}
    assert {each.rpartition("-")[2] for each in names} == {"t1", "t2"}
    # Over a single connection, a second thread would have nothing to do.
    alone = {each.removesuffix("-t1") for each in names if each.endswith("-t1")}
    assert alone - {each.removesuffix("-t2") for each in names} == {"keep-alive-1", "bulk-1"}


@pytest.mark.parametrize("name", [*QUICK, *CORE])
def test_short_run_has_only_scenarios_that_there_are(name: str) -> None:
    assert chosen([name], [each.name for each in SCENARIOS])
