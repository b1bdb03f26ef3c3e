"""Listening sockets: who may have a port, what pausing means, where clients are steered."""

from __future__ import annotations

import errno
import resource
import select
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests import isolation
from tests.ports import free_port
from uproxy.core.route import Frontend
from uproxy.net import listening, pktinfo

MIGRATION: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")
Opener = Callable[..., list[socket.socket]]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens listeners that are closed at the end."""
    with ExitStack() as stack:

        def open_listeners(
            frontend: Frontend, count: int, *, exclusive: bool = True
        ) -> list[socket.socket]:
            found = listening.open_listeners(frontend, count, exclusive=exclusive)
            for sock in found:
                stack.enter_context(sock)
            return found

        yield open_listeners


@pytest.fixture(params=["0", "1"], ids=["closed", "moved"])
def migration(request: pytest.FixtureRequest) -> Iterator[None]:
    """net.ipv4.tcp_migrate_req: whether clients in the queue of a socket that closes move to
    another one of its group. `uproxy doctor` says that either will do."""
    if not (isolation.in_own_network() and MIGRATION.exists()):
        pytest.skip("this takes a network of its own")
    before = MIGRATION.read_text()
    MIGRATION.write_text(request.param)
    yield
    MIGRATION.write_text(before)


def tcp(address: str = "127.0.0.1") -> Frontend:
    return Frontend("TCP", address, free_port())


def connect(frontend: Frontend, source: str = "") -> socket.socket:
    address = (frontend.address, frontend.port)
    return socket.create_connection(address, 5, (source, 0) if source else None)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_somebody_elses_port_is_refused_with_its_number(opened: Opener, protocol: str) -> None:
    frontend = Frontend(protocol, "127.0.0.1", free_port())
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", frontend.port))
        if protocol == "TCP":
            other.listen()
        with pytest.raises(
            listening.ListenError, match=f"{protocol} port {frontend.port} .*in use"
        ):
            opened(frontend, 2)


@pytest.mark.parametrize(
    ("theirs", "ours", "everywhere"),
    [
        pytest.param("0.0.0.0", "127.0.0.1", True, id="wildcard"),
        pytest.param("::", "127.0.0.1", True, id="wildcard of both families"),
        pytest.param("::", "::1", True, id="IPv6"),
        pytest.param("127.0.0.1", "127.0.0.1", False, id="the same address"),
        pytest.param("127.0.0.1", "0.0.0.0", False, id="our wildcard"),
    ],
)
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_port_that_is_taken_at_every_address(
    protocol: str, theirs: str, ours: str, everywhere: bool
) -> None:
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in theirs else socket.AF_INET, kind) as other:
        if theirs == "::":
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind((theirs, 0))
        if protocol == "TCP":
            other.listen()
        with pytest.raises(listening.ListenError) as caught:
            listening.open_listeners(Frontend(protocol, ours, other.getsockname()[1]), 2)
    assert str(caught.value).endswith("every address of this node") is everywhere


@pytest.mark.parametrize("address", ["192.0.2.77", "2001:db8::77"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_an_address_that_comes_and_goes_can_be_listened_at(protocol: str, address: str) -> None:
    frontend = Frontend(protocol, address, free_port())
    with pytest.raises(listening.ListenError) as caught:
        listening.open_listeners(frontend, 1)
    assert caught.value.absent
    for sock in listening.open_listeners(frontend, 2, comes_and_goes=True):
        with sock:
            assert sock.getsockname()[:2] == (address, frontend.port)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_another_uproxy_of_the_same_user_is_somebody_else(opened: Opener, protocol: str) -> None:
    frontend = Frontend(protocol, "127.0.0.1", free_port())
    opened(frontend, 2)
    with pytest.raises(listening.ListenError, match="in use"):
        opened(frontend, 2)


def test_a_wildcard_and_an_address_share_a_port(opened: Opener) -> None:
    wildcard = Frontend("TCP", "0.0.0.0", free_port())
    address = Frontend("TCP", "127.0.0.3", wildcard.port)
    (everywhere,) = opened(wildcard, 1)
    (special,) = opened(address, 1, exclusive=False)
    with connect(address) as one, connect(tcp_at(wildcard.port)) as other:
        for listener, client in ((special, one), (everywhere, other)):
            accepted, peer = listener.accept()
            accepted.close()
            assert peer == client.getsockname()


def tcp_at(port: int) -> Frontend:
    return Frontend("TCP", "127.0.0.1", port)


def test_connections_of_a_previous_run_do_not_hold_the_port(opened: Opener) -> None:
    frontend = tcp()
    (first,) = listening.open_listeners(frontend, 1)
    with connect(frontend) as client:
        accepted, _ = first.accept()
        first.close()
        accepted.close()  # The active close: this side goes into TIME_WAIT.
        assert client.recv(1) == b""
    assert opened(frontend, 2)


@pytest.mark.usefixtures("migration")
def test_paused_is_refused_and_still_ours(opened: Opener) -> None:
    frontend = tcp()
    group = opened(frontend, 2)
    for sock in group:
        listening.pause(sock)
        listening.pause(sock)
    with pytest.raises(ConnectionRefusedError):
        connect(frontend)
    with pytest.raises(listening.ListenError, match="in use"):
        opened(frontend, 1)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind((frontend.address, frontend.port))
    for sock in group:
        listening.resume(sock)
    connect(frontend).close()


@pytest.mark.usefixtures("migration")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_new_clients_are_ignored_and_those_that_wait_stay(opened: Opener, address: str) -> None:
    frontend = tcp(address)
    (sock,) = opened(frontend, 1)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with connect(frontend) as client, socket.socket(family) as newcomer:
        listening.ignore_new_clients(sock)
        newcomer.setblocking(False)
        assert newcomer.connect_ex((address, frontend.port)) == errno.EINPROGRESS
        accepted, _ = sock.accept()
        with pytest.raises(BlockingIOError):
            sock.accept()
        listening.pause(sock)
        with accepted:
            accepted.sendall(b"served")
            assert client.recv(100) == b"served"
        assert select.select([], [newcomer], [], 15)[1]
        assert newcomer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


@pytest.mark.usefixtures("migration")
def test_new_clients_are_accepted_again(opened: Opener) -> None:
    frontend = tcp()
    (sock,) = opened(frontend, 1)
    for pause in (False, True):
        listening.ignore_new_clients(sock)
        if pause:
            listening.pause(sock)
        listening.resume(sock)
        with connect(frontend) as client:
            accepted, peer = sock.accept()
            accepted.close()
            assert peer == client.getsockname()


@pytest.mark.usefixtures("migration")
def test_pausing_leaves_accepted_connections_alone(opened: Opener) -> None:
    frontend = tcp()
    (sock,) = opened(frontend, 1)
    with connect(frontend) as client:
        accepted, _ = sock.accept()
        listening.pause(sock)
        with accepted:
            client.sendall(b"still here")
            assert accepted.recv(32) == b"still here"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_client_keeps_its_worker(opened: Opener, address: str) -> None:
    frontend = tcp(address)
    group = opened(frontend, 3)
    listening.steer_by_client(group[0], 3)
    sources = ["::1"] if address == "::1" else [f"127.0.1.{last}" for last in range(1, 33)]
    where = defaultdict(set)
    for source in sources * 4:
        where[source].add(worker_of(group, frontend, source))
    assert all(len(workers) == 1 for workers in where.values())
    if address == "127.0.0.1":
        assert len({next(iter(workers)) for workers in where.values()}) == 3


def test_a_client_has_the_same_worker_at_each_frontend(opened: Opener) -> None:
    """As its pins are there. The kernel numbers sockets anew when they listen again."""
    frontends = [tcp(), tcp("0.0.0.0"), tcp()]
    groups = [opened(each, 4) for each in frontends]
    for sock in groups[2]:
        listening.pause(sock)
    for sock in groups[2]:
        listening.resume(sock)
    for group in groups:
        listening.steer_by_client(group[0], 4)
    found = set()
    for source in (f"127.0.1.{last}" for last in range(1, 17)):
        at = [
            worker_of(group, each._replace(address="127.0.0.1"), source)
            for group, each in zip(groups, frontends, strict=True)
        ]
        assert len(set(at)) == 1, (source, at)
        found.update(at)
    assert len(found) > 1


def test_a_client_has_the_same_worker_at_each_udp_frontend(opened: Opener) -> None:
    frontends = [Frontend("UDP", "127.0.0.1", free_port()) for _ in range(2)]
    groups = [opened(each, 4) for each in frontends]
    for group in groups:
        listening.steer_by_client(group[0], 4)
    for last in range(1, 17):
        found = []
        for frontend, group in zip(frontends, groups, strict=True):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind((f"127.0.1.{last}", 0))
                client.sendto(b"", (frontend.address, frontend.port))
            ready, _, _ = select.select(group, [], [], 15)
            found += [group.index(each) for each in ready]
            ready[0].recv(1)
        assert len(found) == 2, "each datagram arrived once"
        assert found[0] == found[1]


def test_steering_stops(opened: Opener) -> None:
    frontend = tcp()
    group = opened(frontend, 3)
    listening.stop_steering(group[0])
    listening.steer_by_client(group[0], 3)
    listening.stop_steering(group[0])
    assert len({worker_of(group, frontend, "127.0.1.1") for _ in range(200)}) == 3


def worker_of(group: list[socket.socket], frontend: Frontend, source: str) -> int:
    """Which socket of a group a connection from `source` arrives at."""
    with connect(frontend, source):
        for index, sock in enumerate(group):
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                continue
            return index
    raise AssertionError("the connection arrived nowhere")


@pytest.mark.parametrize(
    ("frontend", "reason"),
    [
        pytest.param(Frontend("TCP", "192.0.2.77", 1), "not on this node", id="foreign IPv4"),
        pytest.param(Frontend("UDP", "2001:db8::77", 1), "not on this node", id="foreign IPv6"),
    ],
)
def test_an_address_that_is_not_here(frontend: Frontend, reason: str, opened: Opener) -> None:
    with pytest.raises(listening.ListenError, match=f"{frontend.address} is {reason}"):
        opened(frontend, 1)


@pytest.mark.parametrize(
    ("frontend", "by"),
    [
        (Frontend("UDP", "0.0.0.0", 20000), ", or by a flow whose backend sees a pod's address"),
        (Frontend("UDP", "0.0.0.0", 30000), ""),
        (Frontend("TCP", "0.0.0.0", 20000), ""),
    ],
    ids=str,
)
def test_what_may_have_a_port(frontend: Frontend, by: str) -> None:
    """A TCP listener can have the port of such a flow, too."""
    reason = listening.explain(OSError(errno.EADDRINUSE, ""), frontend)
    assert reason.endswith(f"is already in use by another process{by}")


def test_flows_inherit_what_they_need(opened: Opener) -> None:
    frontend = tcp()
    (sock,) = opened(frontend, 1)
    with connect(frontend):
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert idle == listening.KEEPALIVE_IDLE


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
def test_what_comes_before_a_worker_looks_has_its_destination(opened: Opener, address: str) -> None:
    wildcard = "::" if ":" in address else "0.0.0.0"
    frontend = Frontend("UDP", wildcard, free_port())
    (listener,) = opened(frontend, 1)
    with socket.socket(listener.family, socket.SOCK_DGRAM) as client:
        client.sendto(b"early", (address, frontend.port))
    pktinfo.enable(listener)
    data, control, _, _ = listener.recvmsg(100, pktinfo.SPACE)
    packed = socket.inet_pton(listener.family, address)
    assert (data, pktinfo.local_address(control)) == (b"early", packed)


def test_frontends_leave_descriptors_for_the_rest(opened: Opener) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = listening.RESERVED_DESCRIPTORS + 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with pytest.raises(listening.ListenError, match="out of file descriptors"):
            opened(tcp(), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert opened(tcp(), 2)
