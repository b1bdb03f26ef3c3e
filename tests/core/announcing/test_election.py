"""One node's election, step by step; tests/announcing has whole clusters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from uproxy.core.announcing.election import Election
from uproxy.core.announcing.lease_objects import decode, encode
from uproxy.core.announcing.leases import LARGEST_EPOCH, AnnouncerLease
from uproxy.core.announcing.step import LocalInterface, OwnState, Step
from uproxy.core.announcing.view import Allowance, Announceable, Candidates
from uproxy.core.cluster.objects import ObjectName

IP, OTHER = "192.0.2.10", "192.0.2.11"
ETH0 = LocalInterface(("192.0.2.0/24",))
OWN = OwnState(interfaces={"eth0": ETH0})
SERVICE = ObjectName("default", "web")
MAC = "02:00:00:00:00:01"


def wanted(*addresses: str, reason: str = "", **weights: int) -> dict[str, Announceable]:
    """Addresses that n0, n1 and n2 may announce, with their weights if any are given."""
    nodes = {name: Allowance(weights.get(name, 0)) for name in ("n0", "n1", "n2")}
    of = Candidates(pool="p", nodes=nodes)
    return {
        each: Announceable(address=each, services=(SERVICE,), candidates=of, reason=reason)
        for each in addresses or (IP,)
    }


def peer(node: str = "n1", **fields: object) -> AnnouncerLease:
    return AnnouncerLease(
        node=node,
        **{  # type: ignore[arg-type]
            "instance": f"{node}.1",
            "duration": 3.0,
            "version": "1",
            "renewals": 1,
            "interfaces": {"eth0": ("192.0.2.0/24",)},
            **fields,
        },
    )


@dataclass
class Driver:
    """An election whose API server answers at once, as long as it is up."""

    election: Election = field(default_factory=lambda: Election("n0", "n0.1"))
    own: OwnState = OWN
    want: dict[str, Announceable] | None = field(default_factory=wanted)
    now: float = 1000.0
    up: bool = True
    version: int = 100
    peers: dict[str, AnnouncerLease] = field(default_factory=dict)
    """Those that renew their Leases."""
    written: list[AnnouncerLease] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    answers: dict[str, str | None] = field(default_factory=dict)
    """What the wire says, by address; no answer for others."""

    def start(self, *leases: AnnouncerLease) -> Step:
        self.election.listed(leases, self.now)
        self.peers = {each.node: each for each in leases}
        return self.run(4.0)

    def run(self, seconds: float) -> Step:
        end = self.now + seconds
        while True:
            step = self.step()
            if self.now >= end:
                return step
            self.now += 0.25
            if self.up and self.now % 1 == 0:
                self.renew()

    def renew(self) -> None:
        for node, lease in list(self.peers.items()):
            self.see(replace(lease, renewals=lease.renewals + 1))
            assert node == lease.node

    def see(self, lease: AnnouncerLease) -> None:
        self.version += 1
        self.peers[lease.node] = replace(lease, version=str(self.version))
        self.election.saw(self.peers[lease.node], self.now)

    def step(self) -> Step:
        gratuitous: tuple[str, ...] = ()
        while True:
            step = self.election.decide(self.own, self.want, self.now)
            gratuitous += step.gratuitous
            self.events += [each.reason for each in step.events]
            for address in step.probe:
                self.election.probed(address, self.answers.get(address), self.now)
            if step.lease is None:
                return replace(step, gratuitous=gratuitous)
            self._write(step.lease)

    def _write(self, lease: AnnouncerLease) -> None:
        if not self.up:
            self.election.write_failed(self.now)
            return
        self.version += 1
        self.written.append(replace(lease, version=str(self.version)))
        self.election.wrote(str(self.version), self.now)
        self.election.saw(self.written[-1], self.now)


def test_the_only_node_takes_an_address_after_a_while() -> None:
    driver = Driver()
    assert not driver.start().announce or driver.now >= 1002
    step = driver.run(1.0)
    assert step.announce == {IP: "eth0"}
    assert driver.written[-1].holds == {IP: 1}
    assert step.states[IP].announcer == "n0"
    assert driver.events == ["nodeAssigned"]


def test_a_later_address_is_taken_at_once() -> None:
    driver = Driver()
    driver.start()
    driver.want = wanted(IP, OTHER)
    step = driver.step()
    assert step.announce.keys() == {IP, OTHER}
    assert OTHER in step.gratuitous


def test_whoever_writes_nothing_is_asked_for_nothing() -> None:
    driver = Driver(want={})
    assert not driver.start().announce
    assert driver.written == []


def test_what_another_node_holds_is_left_to_it() -> None:
    driver = Driver()
    step = driver.start(peer(holds={IP: 1}))
    assert step.announce == {}
    assert step.states[IP].announcer == "n1"


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_shared_address_has_one_announcer_whichever_services_have_it(node: str) -> None:
    """ "different services sharing the same ip should advertise from the same node": the choice
    depends on the address and the nodes only."""
    first, second = Driver(), Driver()
    services = (SERVICE, ObjectName("other", "dns"))
    second.want = {IP: replace(wanted()[IP], services=services)}
    for driver in (first, second):
        driver.start(peer(node))
    assert first.step().announce == second.step().announce


def test_what_was_held_over_stays_from_the_first_step_on() -> None:
    driver = Driver(Election("n0", "n0.2", held_over={IP: "eth0"}), want=None)
    assert driver.step().announce == {IP: "eth0"}
    predecessor = peer("n0", holds={IP: 4})
    driver.election.listed([predecessor], driver.now)
    step = driver.step()
    assert step.announce == {IP: "eth0"}
    assert driver.written[-1].holds == {IP: 4}
    driver.want = wanted()
    assert driver.run(2.0).announce == {IP: "eth0"}


def test_what_was_held_over_and_taken_by_another_node_is_given_up() -> None:
    driver = Driver(Election("n0", "n0.2", held_over={IP: "eth0"}))
    step = driver.start(peer("n0", holds={IP: 4}), peer("n1", holds={IP: 5}))
    assert step.announce == {}


def test_what_was_held_over_is_announced_since_the_start() -> None:
    driver = Driver(Election("n0", "n0.2", held_over={IP: "eth0"}))
    begin = driver.now
    assert driver.start().states[IP].since == begin


def test_the_largest_epoch_stays_readable() -> None:
    driver = Driver()
    driver.start(peer(holds={IP: LARGEST_EPOCH}))
    driver.see(peer(instance="", renewals=99))
    driver.peers.clear()
    assert driver.run(3.0).announce == {IP: "eth0"}
    written = encode(driver.written[-1], namespace="x", now="")
    assert isinstance(decode(written), AnnouncerLease)


def test_a_higher_epoch_wins() -> None:
    driver = Driver()
    driver.start()
    driver.see(peer(holds={IP: 2}))
    assert driver.step().announce == {}
    assert driver.written[-1].holds == {}


def test_a_list_from_a_cache_that_is_behind_is_no_news() -> None:
    driver = Driver()
    driver.start(peer(version="60", holds={IP: 1}))
    driver.election.listed([peer(version="50"), *driver.written[-1:]], driver.now)
    step = driver.step()
    assert step.announce == {}
    assert step.states[IP].announcer == "n1"


def test_a_lower_epoch_is_contradicted() -> None:
    driver = Driver()
    driver.start()
    driver.see(peer(holds={IP: 0}))
    assert driver.step().announce == {IP: "eth0"}


def test_a_claim_that_comes_second_is_withdrawn() -> None:
    driver = Driver()
    driver.start()
    driver.want = wanted(IP, OTHER)
    step = driver.election.decide(driver.own, driver.want, driver.now)
    assert step.lease is not None
    assert step.lease.claims == {OTHER: 1}
    driver.see(peer(claims={OTHER: 1}))
    driver._write(step.lease)
    assert OTHER not in driver.step().announce
    assert driver.written[-1].claims == {}


def test_a_claim_that_comes_first_is_kept_though_another_follows() -> None:
    driver = Driver()
    driver.start()
    driver.want = wanted(IP, OTHER)
    step = driver.election.decide(driver.own, driver.want, driver.now)
    assert step.lease is not None
    driver._write(step.lease)
    driver.see(peer(claims={OTHER: 1}))
    assert OTHER in driver.step().announce


def test_it_takes_over_from_a_node_that_is_silent() -> None:
    driver = Driver()
    driver.start(peer(holds={IP: 7}))
    del driver.peers["n1"]
    assert driver.run(4.0).announce == {IP: "eth0"}
    assert driver.written[-1].holds == {IP: 8}


def test_it_waits_for_a_node_that_answers_and_then_takes_over() -> None:
    driver = Driver(answers={IP: MAC})
    driver.start(peer(holds={IP: 7}))
    del driver.peers["n1"]
    step = driver.run(6.0)
    assert step.announce == {}
    assert step.states[IP].reason == "node n1 does not renew its Lease, but answers for it"
    assert driver.run(4.0).announce == {IP: "eth0"}


def test_it_takes_nothing_from_a_node_that_answers_and_cannot_hear() -> None:
    driver = Driver(answers={IP: MAC})
    driver.start(peer(holds={IP: 7}, hears=False))
    del driver.peers["n1"]
    step = driver.run(60.0)
    assert step.announce == {}
    assert "would not hear" in step.states[IP].reason


def test_without_probes_it_waits_as_long_as_a_restart_takes() -> None:
    driver = Driver(own=replace(OWN, probes=False))
    driver.start(peer(holds={IP: 7}))
    del driver.peers["n1"]
    assert driver.run(4.5).announce == {}
    assert driver.run(2.0).announce == {IP: "eth0"}


def test_a_node_that_has_said_good_bye_is_not_waited_for() -> None:
    driver = Driver(answers={IP: MAC})
    driver.start(peer(holds={IP: 7}))
    driver.see(peer(instance="", renewals=99))
    del driver.peers["n1"]
    assert driver.step().announce == {IP: "eth0"}


def test_without_the_api_it_holds_on_and_says_so() -> None:
    driver = Driver()
    driver.start()
    driver.up = False
    driver.run(3.0)
    announced = 0
    for _ in range(40):
        step = driver.step()
        assert step.announce == {IP: "eth0"}
        announced += IP in step.gratuitous
        driver.now += 0.25
    assert announced >= 7


def test_contradicted_in_doubt_it_falls_silent_and_speaks_again_once_nobody_answers() -> None:
    driver = Driver()
    driver.start()
    driver.up = False
    driver.run(3.0)
    driver.answers[IP] = MAC
    driver.election.heard(IP, MAC, driver.now)
    assert driver.run(10.0).announce == {}
    driver.answers.clear()
    assert driver.run(5.0).announce == {IP: "eth0"}


def test_contradicted_in_doubt_it_speaks_again_once_the_api_names_no_other_node() -> None:
    driver = Driver()
    driver.start()
    driver.up = False
    driver.run(3.0)
    driver.election.heard(IP, MAC, driver.now)
    assert driver.step().announce == {}
    driver.up = True
    assert driver.run(1.0).announce == {IP: "eth0"}


def test_contradicted_without_doubt_it_contradicts_once_in_a_second() -> None:
    driver = Driver()
    driver.start()
    driver.run(6.0)
    answered = []
    for _ in range(10):
        driver.election.heard(IP, MAC, driver.now)
        step = driver.run(0.25)
        assert step.announce == {IP: "eth0"}
        answered.append(IP in step.gratuitous)
    assert answered.count(True) <= 4


def test_a_lasting_contradiction_is_an_event() -> None:
    driver = Driver()
    driver.start()
    for _ in range(8):
        driver.election.heard(IP, MAC, driver.now)
        step = driver.run(1.0)
    assert step.states[IP].conflict == MAC
    assert driver.events.count("addressConflict") == 1


def test_a_conflict_that_is_over_is_told_no_more() -> None:
    driver = Driver()
    driver.start()
    for _ in range(8):
        driver.election.heard(IP, MAC, driver.now)
        driver.run(1.0)
    assert driver.step().states[IP].conflict == MAC
    assert driver.run(50.0).states[IP].conflict == MAC
    assert driver.run(15.0).states[IP].conflict == ""


def test_a_frozen_process_announces_nothing_before_it_knows() -> None:
    driver = Driver()
    driver.start()
    driver.now += 3.5
    step = driver.election.decide(driver.own, driver.want, driver.now)
    assert step.announce == {}
    assert step.lease is not None
    driver._write(step.lease)
    assert driver.run(1.0).announce == {IP: "eth0"}


LOSSES = [
    pytest.param(replace(OWN, interfaces={"eth0": ETH0._replace(carrier=False)}), id="carrier"),
    pytest.param(replace(OWN, interfaces={}), id="interface"),
    pytest.param(replace(OWN, unable=frozenset({IP})), id="listeners"),
    pytest.param(replace(OWN, draining=True), id="draining"),
]


@pytest.mark.parametrize("own", LOSSES)
def test_what_it_may_not_announce_it_gives_up_at_once(own: OwnState) -> None:
    driver = Driver()
    driver.start(peer())
    driver.want = wanted()
    driver.see(peer(instance="", renewals=50))
    driver.peers.clear()
    assert driver.run(5.0).announce == {IP: "eth0"}
    driver.own = own
    assert driver.step().announce == {}
    driver.run(1.0)
    assert driver.written[-1].holds == {}
    assert driver.election.explain(IP, driver.now)["n0"]


def test_stopping_says_good_bye_and_writes_no_more() -> None:
    driver = Driver()
    driver.start()
    driver.own = replace(OWN, draining=True)
    driver.run(1.0)
    assert driver.written[-1].released
    count = len(driver.written)
    driver.run(5.0)
    assert len(driver.written) == count


def test_an_endpoint_that_goes_takes_the_address_with_it_and_brings_it_back() -> None:
    driver = Driver()
    driver.start()
    driver.want = wanted(reason="no endpoint of default/web is ready")
    step = driver.step()
    assert step.announce == {}
    assert step.states[IP].reason == "no endpoint of default/web is ready"
    driver.want = wanted()
    assert driver.step().announce == {IP: "eth0"}


def test_preferred_node_reclaims_after_a_while() -> None:
    """ "fail over and reclaim": the holder gives way to a preferred node that has been eligible for
    five seconds."""
    driver = Driver(want=wanted(n1=10))
    assert driver.start().announce == {IP: "eth0"}
    driver.see(peer())
    assert driver.run(4.0).announce == {IP: "eth0"}
    assert driver.run(2.0).announce == {}


def test_preferred_node_re_elects_on_spec_change() -> None:
    driver = Driver()
    driver.start()
    driver.see(peer())
    assert driver.run(20.0).announce == {IP: "eth0"}
    driver.want = wanted(n1=10)
    assert driver.run(6.0).announce == {}


def test_without_preference_a_better_node_takes_nothing_back() -> None:
    for other in ("n1", "n2"):
        driver = Driver()
        driver.start()
        driver.see(peer(other))
        assert driver.run(30.0).announce == {IP: "eth0"}


def test_another_process_of_this_node_supersedes_it() -> None:
    driver = Driver()
    driver.start()
    driver.see(peer("n0", instance="n0.2", holds={IP: 1}))
    step = driver.step()
    assert step.superseded
    assert step.lease is None


def test_it_goes_on_when_the_process_that_superseded_it_is_dead() -> None:
    driver = Driver()
    driver.start()
    driver.see(peer("n0", instance="n0.2"))
    del driver.peers["n0"]
    assert driver.run(7.0).superseded
    step = driver.run(5.0)
    assert not step.superseded
    assert step.announce == {IP: "eth0"}
    assert driver.written[-1].instance == "n0.1"


def test_what_a_superseded_process_had_is_announced_only_when_no_other_node_has_it() -> None:
    driver = Driver()
    assert driver.start().announce
    driver.see(peer("n0", instance="n0.2"))
    del driver.peers["n0"]
    driver.step()
    driver.up = False
    driver.answers[IP] = MAC
    assert driver.run(12.0).announce == {}


def test_a_process_that_sees_its_own_lease_again_is_not_superseded() -> None:
    """A list from a cache that is behind does not have it; then comes what happened since."""
    driver = Driver()
    driver.start()
    own = driver.written[-1]
    driver.election.listed([], driver.now)
    driver.see(peer("n0", instance="n0.0"))
    del driver.peers["n0"]
    driver.election.saw(replace(own, version=str(driver.version)), driver.now)
    assert not driver.step().superseded


def test_a_deleted_lease_is_written_again() -> None:
    driver = Driver()
    driver.start()
    driver.election.gone("n0", driver.now)
    assert driver.step().announce == {IP: "eth0"}
    assert driver.election.decide(driver.own, driver.want, driver.now).lease is None
    assert driver.written[-1].holds == {IP: 1}


def test_a_conflict_is_resolved_with_the_version_that_is_there() -> None:
    driver = Driver()
    driver.start()
    driver.now += 1.0
    step = driver.election.decide(driver.own, driver.want, driver.now)
    assert step.lease is not None
    driver.election.write_conflicted(replace(driver.written[-1], version="777"), driver.now)
    driver.now += 0.5
    again = driver.election.decide(driver.own, driver.want, driver.now).lease
    assert again is not None
    assert again.version == "777"


def alone(**fields: object) -> Driver:
    return Driver(Election("n0", "n0.1", alone=True), **fields)  # type: ignore[arg-type]


def test_alone_it_asks_the_wire_and_writes_nothing() -> None:
    driver = alone()
    assert driver.run(1.0).announce == {IP: "eth0"}
    assert driver.written == []


def test_alone_it_leaves_what_another_machine_answers_for() -> None:
    driver = alone(answers={IP: MAC})
    step = driver.run(20.0)
    assert step.announce == {}
    assert "another machine" in step.states[IP].reason
    assert driver.events == ["addressConflict"]
    driver.answers.clear()
    assert driver.run(10.0).announce == {IP: "eth0"}


def test_alone_it_gives_way_to_another_machine() -> None:
    driver = alone()
    driver.run(1.0)
    driver.answers[IP] = MAC
    driver.election.heard(IP, MAC, driver.now)
    assert driver.run(5.0).announce == {}
    assert driver.events == ["nodeAssigned", "addressConflict"]


def test_alone_no_machine_is_blamed_for_a_pause() -> None:
    driver = alone()
    driver.run(1.0)
    driver.now += 60.0
    assert driver.step().announce == {}
    assert driver.run(5.0).announce == {IP: "eth0"}
    assert driver.events == ["nodeAssigned"]


def test_missing_interfaces_are_an_event() -> None:
    of = Candidates(pool="p", nodes={"n0": Allowance(0, ("eth7",))})
    driver = Driver(want={IP: replace(wanted()[IP], candidates=of)})
    assert driver.start().announce == {}
    assert driver.events == ["announceFailed"]


def test_an_ignored_label_is_an_event() -> None:
    of = Candidates(pool="p", nodes={"n0": Allowance()}, exclusion_ignored=True)
    driver = Driver(want={IP: replace(wanted()[IP], candidates=of)})
    driver.start()
    assert driver.events == ["nodeAssigned", "exclusionIgnored"]


def test_every_node_is_explained() -> None:
    of = Candidates(
        pool="p",
        nodes={name: Allowance() for name in ("n0", "n1", "n2", "n3", "n4")},
        refused={"n9": "it has the label"},
    )
    driver = Driver(want={IP: replace(wanted()[IP], candidates=of)})
    driver.start(
        peer("n1", holds={IP: 1}),
        peer("n2", interfaces={"eth0": ("10.0.0.0/8",)}),
        peer("n3", unable=frozenset({IP})),
    )
    reasons = driver.election.explain(IP, driver.now)
    assert reasons == {
        "n0": "",
        "n1": "",
        "n2": f"none of its interfaces has a subnet with {IP}",
        "n3": "its listeners are not open",
        "n4": "it is not one of the announcers",
        "n9": "it has the label",
    }
    del driver.peers["n1"]
    driver.answers[IP] = MAC
    driver.run(5.0)
    assert driver.election.explain(IP, driver.now)["n1"].startswith("it has not renewed its Lease")


def test_what_the_node_can_do_may_be_told_in_a_new_object_each_time() -> None:
    """Otherwise all addresses would be gone through at each heartbeat."""
    driver = Driver()
    driver.start()
    driver.run(5.0)
    before = driver.step().states
    driver.own = replace(OWN, interfaces=dict(OWN.interfaces))
    assert driver.run(2.0).states is before


def test_states_are_the_same_object_as_long_as_nothing_changes() -> None:
    driver = Driver()
    driver.start(peer(holds={OTHER: 1}))
    driver.run(5.0)
    before = driver.step().states
    assert driver.run(5.0).states is before


def test_addresses_that_no_service_has_any_more_are_forgotten() -> None:
    """They may be others each time, as clusters live for years."""
    driver = Driver()
    driver.start(peer(holds={IP: 7}))
    driver.see(peer(holds={}))
    assert driver.run(4.0).announce == {IP: "eth0"}
    assert driver.written[-1].holds == {IP: 8}
    driver.want = wanted(OTHER)
    driver.run(4.0)
    driver.want = wanted(IP)
    driver.run(4.0)
    assert driver.written[-1].holds == {IP: 1}


def test_it_is_announced_anew_where_neighbours_know_another_link_layer_address() -> None:
    driver = Driver(own=OwnState(interfaces={"eth0": ETH0._replace(mac="02:00:00:00:00:00")}))
    driver.start()
    assert driver.run(8.0).gratuitous == ()
    driver.own = OwnState(interfaces={"eth0": ETH0._replace(mac=MAC)})
    assert driver.step().gratuitous == (IP,)
    driver.run(8.0)
    both = {"eth0": ETH0._replace(carrier=False), "eth1": ETH0._replace(mac="02:00:00:00:00:02")}
    driver.own = OwnState(interfaces=both)
    step = driver.step()
    assert step.announce == {IP: "eth1"}
    assert step.gratuitous == (IP,)


def test_an_endpoint_that_comes_back_finds_the_address_where_it_was_at_once() -> None:
    """Otherwise each node would wait for another one, which it takes to be the better one."""
    addresses = [f"192.0.2.{number}" for number in range(10, 20)]
    driver = Driver(want=wanted(*addresses))
    elsewhere = frozenset(addresses)
    step = driver.start(peer("n1", unable=elsewhere), peer("n2", unable=elsewhere))
    assert step.announce.keys() == set(addresses)
    driver.see(peer("n1"))
    driver.see(peer("n2"))
    kept = wanted(addresses[0])
    driver.want = wanted(*addresses, reason="no endpoint of default/web is ready") | kept
    assert driver.run(4.0).announce.keys() == set(kept)
    driver.want = wanted(*addresses)
    assert driver.step().announce.keys() == set(addresses)


def test_the_last_holder_does_not_wait_even_if_it_has_left_the_announcers_meanwhile() -> None:
    driver = Driver()
    assert driver.start().announce == {IP: "eth0"}
    driver.want = wanted(reason="no endpoint of default/web is ready")
    driver.run(4.0)
    assert driver.written[-1].released
    driver.want = wanted()
    assert driver.step().announce == {IP: "eth0"}


@pytest.mark.parametrize("others", [(), ("n1", "n2")])
def test_the_reason_names_the_subnet_that_is_missing(others: tuple[str, ...]) -> None:
    address = "203.0.113.9"
    driver = Driver(want=wanted(address))
    step = driver.start(*map(peer, others))
    assert step.states[address].announcer == ""
    reason = "node n0 cannot: none of its interfaces has a subnet with 203.0.113.9"
    assert step.states[address].reason == reason


def test_the_reason_names_the_nodes_on_which_uproxy_should_run() -> None:
    of = Candidates(pool="p", nodes={f"n{number}": Allowance() for number in (3, 4, 5, 6)})
    driver = Driver(want={IP: Announceable(address=IP, services=(SERVICE,), candidates=of)})
    step = driver.start(peer())
    reason = "uproxy announces on none of the nodes that may announce it: n3, n4, n5, ..."
    assert step.states[IP].reason == reason


def test_an_address_that_will_be_taken_soon_is_not_said_to_be_impossible() -> None:
    driver = Driver(want={})
    driver.start(peer())
    of = Candidates(pool="p", nodes={"n1": Allowance()})
    driver.want = {IP: Announceable(address=IP, services=(SERVICE,), candidates=of)}
    assert driver.step().states[IP].reason == "no node has taken it yet"
