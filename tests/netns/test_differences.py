"""What docs/differences.md says about a node that has real listeners instead of rules.

Which backends answer, and whose address they see, is compared in test_kube_proxy_answers.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.netns import kit
from tests.netns.kit import World
from tests.netns.node import program, service, slices, write
from tests.netns.peers import REFUSED, RESET, SILENCE, Pod, ask, ping, pod

pytestmark = kit.needs()

WEB = {"IPv4": "203.0.113.1", "IPv6": "2001:db8:3::1"}
SILENT = {"IPv4": "203.0.113.2", "IPv6": "2001:db8:3::2"}
PORTS = [{"name": "t", "port": 80, "protocol": "TCP"}, {"name": "u", "port": 80, "protocol": "UDP"}]


@pytest.fixture(scope="module")
def backend(net: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod of the Service "web". At the only backend of "silent", nothing listens."""
    directory = tmp_path_factory.mktemp("differences") / "manifests"
    directory.mkdir()
    for name, addresses, place in (("web", WEB, net.local[0]), ("silent", SILENT, net.local[1])):
        wanted = service(name, type="ClusterIP", clusterIPs=list(addresses.values()), ports=PORTS)
        write(directory, f"{name}.yaml", wanted, *slices(name, [(place, "here", "ready")]))
    with pod("a", net.local[0]) as running, program(net.node.space, directory):
        yield running


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
class TestClaimedAddresses:
    """They are this node's own, with all of their ports."""

    def test_answer_ping(self, net: World, backend: Pod, family: str) -> None:
        for caller in (net.local[1], net.client, net.node):
            assert ping(caller.space, WEB[family]) == WEB[family]

    def test_refuse_at_ports_without_a_service(self, net: World, backend: Pod, family: str) -> None:
        for protocol in ("TCP", "UDP"):
            assert ask(net.local[1].space, protocol, WEB[family], 81) == REFUSED

    def test_lead_to_servers_of_the_node(self, net: World, backend: Pod, family: str) -> None:
        everywhere = "::" if family == "IPv6" else "0.0.0.0"
        with net.node.space.socket(kit.family_of(everywhere), socket.SOCK_STREAM) as server:
            server.bind((everywhere, 0))
            server.listen()
            port = server.getsockname()[1]
            with net.local[1].space.socket(server.family, socket.SOCK_STREAM) as client:
                client.settimeout(15)
                assert client.connect_ex((WEB[family], port)) == 0


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_backends_that_all_refuse(net: World, backend: Pod, family: str) -> None:
    """The client is connected to the proxy already, so it is reset, not refused."""
    caller = net.local[2].space
    assert ask(caller, "TCP", SILENT[family], 80) == RESET
    assert ask(caller, "UDP", SILENT[family], 80, patience=0.25) == SILENCE


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_the_client_s_port_is_not_shown(net: World, backend: Pod, family: str) -> None:
    own, port = net.local[1].address(family), 9000
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with net.local[1].space.socket(kit.family_of(own), kind) as sock:
            sock.settimeout(15)
            sock.bind((own, port))
            sock.connect((WEB[family], 80))
            sock.send(b"hello")
            assert sock.recv(100).startswith(b"a ")
        assert backend.seen[-1][2] != port
