"""Service ports from which replies to pods' addresses did not come back, and paths on which they
do."""

from __future__ import annotations

from uproxy.control.astray_ports import AstrayPorts
from uproxy.core.route import Backend, ServicePortName
from uproxy.net.messages import Astray, Witness

HTTP = Astray(ServicePortName("default", "web", "http", "TCP"), "IPv4")
DNS = Astray(ServicePortName("kube-system", "dns", "", "UDP"), "IPv4 here")
OTHER = ServicePortName("default", "other", "", "TCP")


def witness(path: str, number: int = 1) -> Witness:
    return Witness(path, OTHER, Backend(f"10.0.1.{number}", 80), "10.0.0.9")


class Recorded(AstrayPorts):
    def __init__(self) -> None:
        self.changes = 0
        super().__init__(self._count)

    def _count(self) -> None:
        self.changes += 1


def found(*which: Astray) -> list[ServicePortName]:
    return [each.port for each in which]


def test_each_is_news_once() -> None:
    """Every worker may report it."""
    ports = Recorded()
    ports.reported([HTTP, DNS], 0.0)
    ports.reported([DNS], 1.0)
    assert (sorted(ports.ports), ports.changes) == (found(HTTP, DNS), 1)


def test_they_are_tried_again_after_an_hour() -> None:
    ports = Recorded()
    ports.reported([HTTP], 0.0)
    ports.reported([DNS], 100.0)
    ports.expire(3599.0)
    assert (sorted(ports.ports), ports.changes) == (found(HTTP, DNS), 2)
    ports.expire(3600.0)
    assert (sorted(ports.ports), ports.changes) == (found(DNS), 3)
    ports.reported([HTTP], 3601.0)
    assert (sorted(ports.ports), ports.changes) == (found(HTTP, DNS), 4)


def test_they_are_tried_again_when_something_has_changed() -> None:
    ports = Recorded()
    ports.lift()
    assert ports.changes == 0
    ports.reported([HTTP], 0.0)
    ports.lift()
    assert (sorted(ports.ports), ports.changes) == ([], 2)


def test_the_first_witness_of_a_path_is_news_and_lifts_what_was_found_there() -> None:
    """That may have been the work of a NetworkPolicy."""
    ports = Recorded()
    ports.reported([HTTP, DNS], 0.0)
    ports.reported([], 1.0, witnesses=[witness("IPv4")])
    assert (sorted(ports.ports), ports.changes) == (found(DNS), 2)
    ports.reported([], 2.0, witnesses=[witness("IPv4", 2)])
    assert (ports.witnesses, ports.changes) == ((witness("IPv4"),), 2)


def test_a_worker_that_does_not_know_of_the_witness_yet_is_not_believed() -> None:
    ports = Recorded()
    ports.reported([], 0.0, witnesses=[witness("IPv4")])
    ports.reported([HTTP, DNS], 0.5)
    assert sorted(ports.ports) == found(DNS)


def test_a_path_that_is_broken_has_no_witness() -> None:
    ports = Recorded()
    ports.reported([], 0.0, witnesses=[witness("IPv4")])
    # Another one was lost, of which this worker has heard from no one.
    ports.reported([HTTP], 1.0, lost=[witness("IPv4", 2)])
    assert (ports.witnesses, sorted(ports.ports)) == ((witness("IPv4"),), [])
    ports.reported([HTTP], 1.0, lost=[witness("IPv4")])
    assert (ports.witnesses, sorted(ports.ports)) == ((), found(HTTP))


def test_a_path_on_which_some_replies_come_back_does_not_flap() -> None:
    """Its first witness lifts what was found, once an hour or until the network changes."""
    ports = Recorded()
    ports.reported([HTTP], 0.0, witnesses=[witness("IPv4")])
    assert not ports.ports
    ports.reported([HTTP], 1.0, lost=[witness("IPv4")])
    ports.reported([], 2.0, witnesses=[witness("IPv4")])
    assert sorted(ports.ports) == found(HTTP)
    ports.lift()
    ports.reported([], 3.0, lost=[witness("IPv4")])
    ports.reported([HTTP], 4.0)
    ports.reported([], 5.0, witnesses=[witness("IPv4")])
    assert not ports.ports


def test_a_path_that_was_broken_for_a_while_heals() -> None:
    """Its witness at the start had nothing to lift, so the next one does."""
    ports = Recorded()
    for now in (0.0, 4000.0):
        ports.reported([], now, witnesses=[witness("IPv4")])
        ports.reported([HTTP], now + 10.0, lost=[witness("IPv4")])
        assert sorted(ports.ports) == found(HTTP)
        ports.reported([], now + 20.0, witnesses=[witness("IPv4")])
        assert not ports.ports


def test_in_another_network_nothing_is_proven() -> None:
    ports = Recorded()
    ports.reported([], 0.0, witnesses=[witness("IPv4")])
    ports.forget_witnesses()
    assert (ports.witnesses, ports.changes) == ((), 2)
