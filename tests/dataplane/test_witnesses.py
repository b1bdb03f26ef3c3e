"""What proves that replies come back, and until when."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from uproxy.core.route import Backend, ServicePortName
from uproxy.dataplane.client_address import PodPorts
from uproxy.dataplane.locality import Locality
from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.return_paths import ReturnPaths
from uproxy.dataplane.witnesses import Witnesses
from uproxy.net.messages import LocalClients, Witness

WEB = ServicePortName("default", "web", "", "TCP")
BRIDGE = "10.0.0.0/24"
POD = "10.0.0.2"
CLIENTS = LocalClients(
    (), ("10.0.0.0/16",), ("IPv4",), (BRIDGE, "10.0.7.9/32", "10.0.7.10/32", "2001:db8:1::/64")
)


def far(number: int) -> Backend:
    return Backend(f"10.0.9.{number}", 80)


def witness(number: int, path: str = "IPv4") -> Witness:
    return Witness(path, WEB, far(number), POD)


class FakeReactor:
    """Of a worker that has no descriptor for a probe."""

    now = 0.0

    def __init__(self) -> None:
        self.kernel = self

    def call_later(self, _delay: float, _callback: Callable[[], None]) -> FakeReactor:
        return self

    def cancel(self) -> None:
        """A timer."""

    def new_socket(self, *_: int) -> None:
        raise OSError(errno.EMFILE, "too many open files")


class World:
    """A worker's, which the control process tells something."""

    def __init__(self) -> None:
        self.locality = Locality()
        self.witnesses = Witnesses(self.locality)
        self.tell()

    def tell(self, *shared: Witness, **different: Any) -> set[str]:
        clients = msgspec.structs.replace(CLIENTS, witnesses=shared, **different)
        self.locality.update(clients)
        return self.witnesses.update(clients)

    def saw(self, *numbers: int) -> None:
        for each in numbers:
            self.witnesses.add("IPv4", WEB, far(each), POD)

    @property
    def of_path(self) -> list[Witness]:
        return self.witnesses.of("IPv4")


@pytest.mark.parametrize(
    ("pod", "backend", "path"),
    [
        pytest.param(POD, "10.0.9.1", "IPv4", id="another node"),
        pytest.param("2001:db8:1::2", "2001:db8:2::1", "IPv6", id="another node, IPv6"),
        pytest.param(POD, "10.0.0.3", BRIDGE, id="the same bridge"),
        pytest.param("10.0.7.9", "10.0.0.3", "IPv4 here", id="from a link to a bridge"),
        pytest.param(POD, "10.0.7.9", "IPv4 here", id="from a bridge to a link"),
        pytest.param("10.0.7.10", "10.0.7.9", "IPv4 here", id="from a link to a link"),
        pytest.param("10.0.7.9", "2001:db8:1::2", "IPv6 here", id="here, IPv6"),
    ],
)
def test_backends_whose_replies_take_the_same_way_are_on_one_path(
    pod: str, backend: str, path: str
) -> None:
    assert World().locality.path(pod, backend) == path


def test_the_latest_are_remembered() -> None:
    world = World()
    world.saw(1, 2, 3, 1, 4)
    assert world.of_path == [witness(4), witness(1), witness(3)]


def test_no_single_pod_and_no_single_backend_is_what_all_of_them_depend_on() -> None:
    world = World()
    for pod, number in (("10.0.0.3", 1), (POD, 2), (POD, 3), ("10.0.0.4", 3), (POD, 4), (POD, 5)):
        world.witnesses.add("IPv4", WEB, far(number), pod)
    assert {each.pod for each in world.of_path} == {"10.0.0.3", "10.0.0.4", POD}
    assert world.of_path[0] == witness(5)


def test_the_ports_of_one_backend_are_not_all_that_is_remembered() -> None:
    """A NetworkPolicy for its pod would concern all of them."""
    world = World()
    world.saw(1)
    for number, pod in enumerate(("10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6")):
        world.witnesses.add("IPv4", WEB, Backend("10.0.9.2", 8080 + number), pod)
    assert world.of_path[-1] == witness(1)


def test_each_path_is_reported_once() -> None:
    world = World()
    world.saw(1)
    assert world.witnesses.take_news() == ([witness(1)], [])
    world.saw(2)
    assert world.witnesses.take_news() == ([], [])
    world.tell(witness(1))
    assert world.witnesses.take_news() == ([], [])


def test_a_path_is_reported_again_if_the_reported_witness_has_no_service() -> None:
    """The control process does not take one whose Service was deleted meanwhile."""
    world = World()
    world.saw(1)
    old = WEB._replace(name="old")
    world.witnesses.add("IPv4", old, far(2), POD)
    assert world.witnesses.take_news() == ([witness(2)._replace(owner=old)], [])
    world.witnesses.retain(old, set())
    assert world.witnesses.take_news() == ([witness(1)], [])
    assert world.witnesses.take_news() == ([], [])


def test_a_path_is_reported_again_if_the_control_process_has_forgotten_it() -> None:
    """The network has changed and changed back, and the worker was told of that at once."""
    world = World()
    world.saw(1)
    assert world.witnesses.take_news() == ([witness(1)], [])
    world.tell()
    assert world.witnesses.take_news() == ([witness(1)], [])


def test_a_path_of_which_another_worker_knows_is_proven_and_not_reported() -> None:
    world = World()
    assert world.tell(witness(1)) == {"IPv4"}
    assert world.witnesses.has_path("IPv4")
    assert world.tell(witness(1)) == set()
    world.saw(2)
    assert world.of_path == [witness(2), witness(1)]
    assert world.witnesses.take_news() == ([], [])


def test_what_has_not_answered_is_lost_for_all_workers() -> None:
    first, second = World(), World()
    for world in (first, second):
        world.tell(witness(1))
    second.saw(1, 2)
    first.witnesses.lose(witness(1))
    assert not first.witnesses.has_path("IPv4")
    assert first.witnesses.take_news() == ([], [witness(1)])
    second.tell()
    # It has another one, of which the control process is told.
    assert second.of_path == [witness(2)]
    assert second.witnesses.take_news() == ([witness(2)], [])


def test_a_backend_that_has_left_its_service_proves_nothing() -> None:
    world = World()
    world.tell(witness(1))
    world.saw(2, 3)
    world.witnesses.retain(WEB._replace(name="other"), set())
    world.witnesses.retain(WEB, {far(3)})
    assert world.of_path == [witness(3)]
    assert world.witnesses.take_news() == ([witness(3)], [witness(1)])


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param(("10.0.7.9/32",), id="the pod does not live here any more"),
        pytest.param((BRIDGE, "10.0.9.0/24"), id="the backend is on this node now"),
    ],
)
def test_another_network_leaves_no_witness(pods: tuple[str, ...]) -> None:
    world = World()
    world.saw(2)
    world.tell(witness(1), pods=pods)
    assert world.of_path == []
    assert world.witnesses.take_news() == ([], [witness(1)])


def test_a_backend_may_see_the_node_for_a_pod_that_it_has_answered_until_it_is_silent() -> None:
    """More of them are remembered than prove the path: a busy resolver's client uses up its ports,
    and many others are answered meanwhile."""
    locality = Locality()
    locality.update(CLIENTS)
    no_descriptors = FakeReactor()
    paths = ReturnPaths(cast("Reactor", no_descriptors), PodPorts(lambda: 0.0), locality)
    paths.update(CLIENTS)
    assert paths.may_masquerade(POD, far(1))
    for number in range(1, 9):
        paths.answered(WEB, far(number), f"10.0.0.{number + 1}")
    assert paths.may_masquerade(POD, far(1))
    assert not paths.may_masquerade(POD, far(2))
    paths.probe(WEB, far(1), POD)
    assert not paths.may_masquerade(POD, far(1))
    paths.answered(WEB, far(1), POD)
    for number in range(5000):
        paths.answered(WEB, Backend("10.0.9.9", number), POD)
    assert not paths.may_masquerade(POD, far(1))
    paths.update(CLIENTS)
    assert paths.may_masquerade(POD, Backend("10.0.9.9", 4999))
    paths.update(msgspec.structs.replace(CLIENTS, switched=(BRIDGE,)))
    paths.answered(WEB, far(1), POD)
    assert not paths.may_masquerade(POD, Backend("10.0.9.9", 4999))


def test_a_backend_may_not_see_the_node_for_a_pod_with_the_address_of_one_that_is_gone() -> None:
    locality = Locality()
    locality.update(CLIENTS)
    paths = ReturnPaths(cast("Reactor", FakeReactor()), PodPorts(lambda: 0.0), locality)
    paths.update(CLIENTS)
    for pod in (POD, "10.0.7.9"):
        paths.answered(WEB, far(1), pod)
    for pods in ((BRIDGE,), CLIENTS.pods):
        clients = msgspec.structs.replace(CLIENTS, pods=pods)
        locality.update(clients)
        paths.update(clients)
    assert paths.may_masquerade(POD, far(1))
    assert not paths.may_masquerade("10.0.7.9", far(1))
