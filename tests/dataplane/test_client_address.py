"""Ports of sockets that have the address of a pod."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, repeat

import pytest

from tests.netns import kit
from uproxy.dataplane.client_address import ATTEMPTS, PodPorts
from uproxy.net.client_ports import CLIENT_PORTS

pytestmark = kit.needs()

POD = {4: "198.51.100.7", 6: "2001:db8::7"}
"""Addresses that this machine does not have."""
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@contextmanager
def backend(version: int) -> Iterator[tuple[str, int]]:
    """Whatever is sent there is lost: nothing of this machine has the address."""
    with kit.namespace("alone") as space, space.inside():
        space.ip(
            "link add eth0 type veth peer name eth1",
            "link set eth1 up",
            "link set eth0 up",
            "addr add 192.0.2.1/24 dev eth0",
            "addr add 2001:db8:1::1/64 dev eth0 nodad",
        )
        yield ("192.0.2.9" if version == 4 else "2001:db8:1::9"), 8080


def constant() -> float:
    return 0.0


def few(random: Callable[[], float] = constant, number: int = 4) -> PodPorts:
    return PodPorts(random, CLIENT_PORTS[:number])


@pytest.mark.parametrize("version", [4, 6])
def test_a_tcp_port_serves_many_backends_and_each_once(version: int) -> None:
    with backend(version) as (address, port), ExitStack() as stack:
        ports = few()
        outcomes: dict[int, list[int]] = {port: [], port + 1: []}
        for number in range(16):
            sock = stack.enter_context(socket.socket(FAMILY[version]))
            sock.setblocking(False)
            assert ports.bind_stream(sock, POD[version], address)
            assert sock.getsockname()[0] == POD[version]
            target = port + number // 4 % 2
            code = sock.connect_ex((address, target))
            if code == errno.EINPROGRESS:
                outcomes[target].append(sock.getsockname()[1])
            else:
                assert code == errno.EADDRNOTAVAIL
        for each in outcomes.values():
            assert sorted(each) == list(CLIENT_PORTS[:4])


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_port_serves_one_socket(version: int) -> None:
    with backend(version) as (address, _), ExitStack() as stack:
        ports, found = few(), []
        for _ in range(4):
            sock = stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
            assert ports.bind_datagram(sock, POD[version], address)
            found.append(sock.getsockname()[1])
        assert sorted(found) == list(CLIENT_PORTS[:4])
        sock = stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
        assert not ports.bind_datagram(sock, POD[version], address)
        sock.connect((address, 8080))
        assert sock.getsockname()[0] != POD[version], "it can still be used, with the node's"


def test_udp_ports_are_drawn_and_tcp_ports_used_in_turn() -> None:
    draws = chain((0.5, 0.25, 0.75), repeat(0.0))
    with backend(4) as (address, _), ExitStack() as stack:
        ports = PodPorts(lambda: next(draws))

        def bound(kind: int) -> int:
            sock = stack.enter_context(socket.socket(socket.AF_INET, kind))
            bind = ports.bind_stream if kind == socket.SOCK_STREAM else ports.bind_datagram
            assert bind(sock, POD[4], address)
            return int(sock.getsockname()[1])

        first = CLIENT_PORTS.start
        assert bound(socket.SOCK_STREAM) == first + 10_001
        assert bound(socket.SOCK_DGRAM) == first + 5_000
        assert bound(socket.SOCK_STREAM) == first + 10_002
        assert bound(socket.SOCK_DGRAM) == first + 15_000


def test_ports_of_servers_are_left_out() -> None:
    """One that listens at all addresses has the pod's as well, as far as the kernel is
    concerned."""
    with backend(4) as (address, _), ExitStack() as stack:
        for port in (CLIENT_PORTS[1], CLIENT_PORTS[2]):
            stack.enter_context(socket.create_server(("0.0.0.0", port)))
        sock = stack.enter_context(socket.socket())
        assert few().bind_stream(sock, POD[4], address)
        assert sock.getsockname()[1] == CLIENT_PORTS[3]


def test_it_does_not_look_for_a_free_port_for_ever() -> None:
    with backend(4) as (address, _), ExitStack() as stack:
        for port in CLIENT_PORTS[: ATTEMPTS + 1]:
            stack.enter_context(socket.create_server(("0.0.0.0", port)))
        ports = few(number=ATTEMPTS + 4)
        sock = stack.enter_context(socket.socket())
        assert not ports.bind_stream(sock, POD[4], address)
        assert ports.bind_stream(sock, POD[4], address), "those after them are tried next"


@pytest.mark.parametrize(("client", "address"), [(POD[4], "2001:db8::9"), (POD[6], "192.0.2.9")])
def test_a_backend_of_the_other_family(client: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock, socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        assert not few().bind_stream(sock, client, address)
        assert not few().bind_datagram(datagrams, client, address)
