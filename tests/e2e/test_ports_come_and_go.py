"""Ports that are added to a Service and removed from it while clients are connected, and slices
that share its ports and endpoints."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pods import Pod, pod, read_line, visit
from tests.e2e.program import PATIENCE, endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"
ADDRESS = "127.10.0.41"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory


def refused(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 5).close()
    except OSError:
        return True
    return False


class Client:
    """A TCP connection and a UDP socket that stay where they are."""

    def __init__(self, address: str, port: int, udp_port: int) -> None:
        self.tcp = socket.create_connection((address, port), PATIENCE)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.settimeout(PATIENCE)
        self.udp.connect((address, udp_port))
        self.sent = 0
        """Datagrams."""
        self.pod = read_line(self.tcp)
        self.udp_pod = self._ask("first")

    def check_undisturbed(self, word: str) -> None:
        """Both are where they were."""
        self.tcp.sendall(f"{word}\n".encode())
        assert read_line(self.tcp) == word
        assert self._ask(word) == self.udp_pod

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()

    def _ask(self, word: str) -> str:
        self.udp.send(word.encode())
        self.sent += 1
        name, _, echo = self.udp.recv(100).decode().partition(" ")
        assert echo == word
        return name


@contextlib.contextmanager
def client(address: str, port: int, udp_port: int) -> Iterator[Client]:
    made = Client(address, port, udp_port)
    try:
        yield made
    finally:
        made.close()


def tcp(name: str, port: int, node_port: int) -> dict[str, Any]:
    return {"name": name, "port": port, "nodePort": node_port, "protocol": "TCP"}


def udp(name: str, port: int, node_port: int) -> dict[str, Any]:
    return {**tcp(name, port, node_port), "protocol": "UDP"}


def web(*ports: dict[str, Any]) -> dict[str, Any]:
    return service("web", clusterIP=ADDRESS, ports=ports)


def test_flows_of_the_other_ports_go_on(manifests: Path) -> None:
    """Upstream's "should be able to add and delete ports", with clients that stay connected."""
    main, added, datagrams = free_port(), free_port(), free_port()
    with pod("a") as a, pod("b") as b, pod("c") as c:
        kept = [tcp("main", main, free_port()), udp("dns", datagrams, free_port())]
        more = tcp("more", added, free_port())
        write(manifests, "web.yaml", web(*kept))
        write(
            manifests,
            "slices.yaml",
            *endpoints("web", [a, b]),
            *endpoints("web", [a, b], port="dns", protocol="UDP"),
            *endpoints("web", [c], port="more"),
        )
        with (
            program(manifests, "--drain-timeout", "10m") as uproxy,
            client(ADDRESS, main, datagrams) as by_ip,
            client(HERE, kept[0]["nodePort"], kept[1]["nodePort"]) as by_node_port,
        ):
            clients = (by_ip, by_node_port)

            def check_all(word: str) -> None:
                for each in clients:
                    each.check_undisturbed(word)

            assert refused(ADDRESS, added)
            write(manifests, "web.yaml", web(more, *kept))
            wait_for("the new port", lambda: not refused(ADDRESS, added))
            assert visit(HERE, more["nodePort"]) == "c"
            check_all("a port was added in front of them")
            with socket.create_connection((ADDRESS, added), PATIENCE) as leaving:
                assert read_line(leaving) == "c"
                write(manifests, "web.yaml", web(*kept))
                wait_for("no such port any more", lambda: refused(ADDRESS, added))
                wait_for("nor such a NodePort", lambda: refused(HERE, more["nodePort"]))
                check_all("it was removed")
                # Within --drain-timeout.
                leaving.sendall(b"finishing\n")
                assert read_line(leaving) == "finishing"
            # Numbers change, names stay.
            moved = {**kept[0], "port": added, "nodePort": more["nodePort"]}
            write(manifests, "web.yaml", web(moved, kept[1]))
            wait_for("the new number", lambda: not refused(ADDRESS, added))
            wait_for("not the old one", lambda: refused(ADDRESS, main))
            check_all("its number has changed")
            assert visit(ADDRESS, added) in ("a", "b")
            assert visit(HERE, more["nodePort"]) in ("a", "b")

            def counted(what: str) -> int:
                number: int = uproxy.counts(f"{ADDRESS}:{datagrams}/UDP")[what]
                return number

            sent = sum(each.sent for each in clients)
            wait_for("all are counted", lambda: counted("clientDatagrams") == sent)
            assert counted("flows") == len(clients), "none began anew"
            assert uproxy.status()["services"] == []


def test_a_removed_port_s_flows_end_after_the_drain_timeout(manifests: Path) -> None:
    main, other, datagrams = free_port(), free_port(), free_port()
    with pod("a") as a:
        kept = [tcp("main", main, free_port()), udp("dns", datagrams, free_port())]
        write(manifests, "web.yaml", web(*kept, tcp("other", other, free_port())))
        write(
            manifests,
            "slices.yaml",
            *endpoints("web", [a]),
            *endpoints("web", [a], port="dns", protocol="UDP"),
            *endpoints("web", [a], port="other"),
        )
        with (
            program(manifests, "--drain-timeout", "200ms"),
            client(ADDRESS, main, datagrams) as staying,
            socket.create_connection((ADDRESS, other), PATIENCE) as leaving,
        ):
            assert read_line(leaving) == "a"
            write(manifests, "web.yaml", web(*kept))
            with pytest.raises(ConnectionResetError):
                leaving.recv(1)
            staying.check_undisturbed("the other port has gone")


def test_named_ports_that_resolve_differently_and_ports_of_several_slices(manifests: Path) -> None:
    """Upstream's "should function for service endpoints using named ports that resolve
    differently", and "multiple ports specified in multiple EndpointSlices"."""
    numbers = {name: free_port() for name in ("http", "admin")}
    with pod("a") as a, pod("b") as b, pod("c") as c:
        ports = [tcp(name, port, free_port()) for name, port in numbers.items()]
        write(manifests, "web.yaml", web(*ports))
        # Each pod has another number; b has both ports, each of the others has one.
        write(
            manifests,
            "slices.yaml",
            *endpoints("web", [a, b], port="http"),
            *endpoints("web", [b, c], port="admin"),
        )
        with program(manifests):
            assert {visit(ADDRESS, numbers["http"]) for _ in range(8)} == {"a", "b"}
            assert {visit(ADDRESS, numbers["admin"]) for _ in range(8)} == {"b", "c"}


def test_an_endpoint_that_moves_between_slices_is_never_missing(manifests: Path) -> None:
    """The controller adds it to the new slice first, so that both have it for a while."""
    number, datagrams = free_port(), free_port()
    with pod("a") as a, pod("b") as b:
        ports = tcp("main", number, free_port()), udp("dns", datagrams, free_port())
        write(manifests, "web.yaml", web(*ports))
        with_both = [*_slices("one", a, b), *_slices("two", b)]
        write(manifests, "slices.yaml", *_slices("one", a, b))
        with program(manifests) as uproxy, client(ADDRESS, number, datagrams) as staying:
            frontend = f"{ADDRESS}:{number}/TCP"
            assert len(uproxy.frontend(frontend)["backends"]) == 2
            moves = (with_both, [*_slices("one", a), *_slices("two", b)], with_both)
            for step, objects in enumerate(moves):
                # Nothing else shows that a change that changes nothing has been read.
                mark = service(f"step-{step}", ports=[])
                write(manifests, "slices.yaml", *objects, mark)
                wait_for("it is read", lambda: f"step-{step}" in str(uproxy.status()["services"]))  # noqa: B023
                assert {visit(ADDRESS, number) for _ in range(20)} == {"a", "b"}
                staying.check_undisturbed("moved")
            # One that terminates in the old slice does not count where the new one has it.
            old = _slices("one", a, b)
            for each in old:
                each["endpoints"][0]["conditions"] = {"ready": False, "terminating": True}
            write(manifests, "slices.yaml", *old, *_slices("two", a))
            wait_for("b has gone", lambda: {visit(ADDRESS, number) for _ in range(8)} == {"a"})
            assert len(uproxy.frontend(frontend)["backends"]) == 1


def _slices(name: str, *pods: Pod) -> list[dict[str, Any]]:
    made = [*endpoints("web", pods), *endpoints("web", pods, port="dns", protocol="UDP")]
    for each in made:
        each["metadata"]["name"] += f"-{name}"
    return made
