"""Services with the annotation uproxy.dev/proxy-protocol, before HAProxy and nginx."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import Program, program, service, wait_for, write
from tests.e2e.receivers import RECEIVERS, get, needs, receiving
from tests.ports import free_port
from uproxy.core.route import ProxyProtocol
from uproxy.dataplane.tcp.proxy_protocol import header_without_client

ANNOTATION = "uproxy.dev/proxy-protocol"
LOOPBACK = {"IPv4": "127.0.0.1", "IPv6": "::1"}


def announced(name: str, number: int, version: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "main", "port": 80, "nodePort": number}]
    made = service(
        name, ports=ports, ipFamilies=["IPv4", "IPv6"], ipFamilyPolicy="RequireDualStack", **spec
    )
    made["metadata"]["annotations"] = {ANNOTATION: version}
    return made


def slices(name: str, port: int) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family.lower()}",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family,
            "ports": [{"name": "main", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "nodeName": "here"}],
        }
        for family, address in LOOPBACK.items()
    ]


class TestReceivers:
    """One program, one receiver, a Service for each version."""

    @pytest.fixture(scope="class", params=[pytest.param(e, marks=needs(e)) for e in RECEIVERS])
    @classmethod
    def served(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[dict[str, int]]:
        """NodePorts by version; under "itself" the port of the receiver."""
        manifests = tmp_path_factory.mktemp("manifests")
        with receiving(request.param, tmp_path_factory.mktemp("receiver")) as port:
            ports = {version.value: free_port() for version in ProxyProtocol}
            for version, number in ports.items():
                objects = announced(version, number, version), *slices(version, port)
                write(manifests, f"{version}.yaml", *objects)
            with program(manifests):
                yield ports | {"itself": port}

    @pytest.mark.parametrize("version", ["v1", "v2"])
    @pytest.mark.parametrize(
        ("address", "source"),
        [
            pytest.param("127.0.0.1", "127.0.0.77", id="IPv4"),
            pytest.param("127.0.0.9", "127.1.2.3", id="IPv4, another address of the node"),
            pytest.param("::1", "::1", id="IPv6"),
        ],
    )
    def test_learns_both_ends(
        self, served: dict[str, int], version: str, address: str, source: str
    ) -> None:
        number = served[version]
        with socket.create_connection((address, number), 10, source_address=(source, 0)) as sock:
            client_port = sock.getsockname()[1]
            assert get(sock) == [source, str(client_port), address, str(number)]

    @pytest.mark.parametrize("version", list(ProxyProtocol))
    @pytest.mark.parametrize("address", LOOPBACK.values())
    def test_takes_a_header_without_client(
        self, served: dict[str, int], version: ProxyProtocol, address: str
    ) -> None:
        """What a probe of a proxy's own would send: the connection's own addresses count."""
        with socket.create_connection((address, served["itself"]), 10) as sock:
            own = [sock.getsockname()[0], str(sock.getsockname()[1]), address]
            words = get(sock, header_without_client(version))
        assert words in ([*own, str(served["itself"])], [])


def test_wrong_values_and_udp(tmp_path: Path) -> None:
    """A backend that expects a header must not take a client's words for it."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    number = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        made = announced("web", number, "v3")
        write(manifests, "web.yaml", made, *slices("web", port))
        with program(manifests) as uproxy:
            (reason,) = _reasons(uproxy)
            assert reason.startswith(f'annotation {ANNOTATION} is "v3", so clients of TCP ports')
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", number), 10)
            frontend = uproxy.frontend(f"0.0.0.0:{number}/TCP")
            assert (frontend["state"], frontend["proxyProtocol"]) == ("paused", None)
            made["metadata"]["annotations"][ANNOTATION] = "v1"
            dns = {"name": "dns", "port": 53, "nodePort": free_port(), "protocol": "UDP"}
            made["spec"]["ports"].append(dns)
            write(manifests, "web.yaml", made, *slices("web", port))
            wanted = f'port "dns": annotation {ANNOTATION} has no effect on UDP'
            wait_for("the other reason", lambda: _reasons(uproxy) == [wanted])
            name = f"0.0.0.0:{number}/TCP"
            wait_for("an open port", lambda: uproxy.frontend(name)["state"] == "serving")
            assert _first_bytes(server, number).startswith(b"PROXY TCP4 127.0.0.1 ")
            assert uproxy.frontend(f"0.0.0.0:{number}/TCP")["proxyProtocol"] == "v1"


def _reasons(uproxy: Program) -> list[str]:
    return [each["reason"] for each in uproxy.status()["services"]]


def _first_bytes(server: socket.socket, number: int) -> bytes:
    with socket.create_connection(("127.0.0.1", number), 10) as client:
        client.sendall(b"hello")
        backend, _ = server.accept()
        with backend:
            return backend.recv(100)
