"""Addresses that a node depends on stay where they are, whatever Services ask for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread
from tests.netns import kit
from tests.netns.kit import Namespace, Place, World
from tests.netns.node import program, service, slices, wait_for, write
from tests.netns.peers import Pod, ask, pod
from tests.netns.test_claims import claimed

pytestmark = kit.needs()

GATEWAY, DNS = "192.0.2.254", "203.0.113.53"
CLUSTER_IP, FREE = "203.0.113.10", "203.0.113.20"
ANYWHERE = ("--external-ip-cidrs", "0.0.0.0/0,::/0")
PORTS = [{"name": "t", "port": 80, "protocol": "TCP"}]


@pytest.fixture(scope="module")
def backend(net: World) -> Iterator[Pod]:
    with pod("a", net.local[0]) as running:
        yield running


def node(name: str, *addresses: str) -> dict[str, Any]:
    listed = [{"type": "InternalIP", "address": each} for each in addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": listed},
    }


def web(net: World, *, external: list[str], ingress: list[str]) -> list[dict[str, Any]]:
    entries = [{"ip": each} for each in ingress]
    fields: dict[str, Any] = {
        "type": "LoadBalancer",
        "clusterIPs": [CLUSTER_IP],
        "ports": PORTS,
        "externalIPs": external,
        "status": {"loadBalancer": {"ingress": entries}},
    }
    return [service("web", **fields), *slices("web", [(net.local[0], "here", "ready")])]


@contextmanager
def resolver(space: Namespace) -> Iterator[None]:
    """`ip netns exec` shows this /etc/resolv.conf to what it runs."""
    directory = Path("/etc/netns", space.name)
    directory.mkdir(parents=True)
    try:
        (directory / "resolv.conf").write_text(f"search example\nnameserver {DNS}\n")
        yield
    finally:
        (directory / "resolv.conf").unlink()
        directory.rmdir()


@contextmanager
def api_server(place: Place) -> Iterator[ThreadedApi]:
    with place.space.inside():
        running = in_thread(FakeApi(host=place.ipv4))
        api = running.__enter__()
    try:
        yield api
    finally:
        running.__exit__(None, None, None)


def test_addresses_that_the_machine_cannot_do_without(
    net: World, backend: Pod, manifests: Path
) -> None:
    """Its gateway, its DNS server, the broadcast addresses of its networks, and other nodes."""
    wanted = {
        GATEWAY: "this node's gateway",
        DNS: "a DNS server of this node",
        "192.0.2.255": "a broadcast address of this node",
        "198.51.100.0": "a broadcast address of this node",
        net.node2.ipv4: "this node's gateway",
        "192.0.2.77": "an address of node there",
        "169.254.169.254": "a link-local address",
    }
    net.node.space.ip(f"route add default via {GATEWAY}")
    try:
        ingress, external = [FREE, *list(wanted)[:4]], list(wanted)[3:]
        objects = web(net, external=[*external, net.second[0]], ingress=ingress)
        write(manifests, "web.yaml", *objects, node("there", "192.0.2.77"))
        with resolver(net.node.space), program(net.node.space, manifests, *ANYWHERE) as uproxy:
            assert claimed(net.node.space) == {CLUSTER_IP, FREE}
            for address in (CLUSTER_IP, FREE, net.second[0]):
                assert ask(net.client.space, "TCP", address, 80).startswith("a ")
            said = uproxy.reasons("web")
            for address, whose in wanted.items():
                assert any(
                    each.endswith(f" {address} is {whose}; it is not claimed") for each in said
                )
            # What comes later is given up again.
            write(manifests, "node.yaml", node("yonder", FREE))
            wait_for("release", lambda: claimed(net.node.space) == {CLUSTER_IP})
            (manifests / "node.yaml").unlink()
            wait_for("claim", lambda: claimed(net.node.space) == {CLUSTER_IP, FREE})
    finally:
        net.node.space.ip(f"route del default via {GATEWAY}")


def serves(net: World, address: str) -> bool:
    return ask(net.client.space, "TCP", address, 80).startswith("a ")


def test_the_api_server_s_address_is_not_claimed(net: World, backend: Pod, tmp_path: Path) -> None:
    place = net.node2
    with api_server(place) as api:
        objects = web(net, external=[place.ipv4], ingress=[place.ipv4, FREE])
        api.call(lambda server: server.apply(node("here", net.node.ipv4), *objects))
        # An earlier process was not as careful.
        net.node.space.ip(f"route add local {place.ipv4} dev lo table local proto 117")
        config = write_kubeconfig(tmp_path / "kubeconfig", api.url)
        source = ["--kubeconfig", str(config)]
        with program(net.node.space, tmp_path, *ANYWHERE, source=source) as uproxy:
            assert claimed(net.node.space) == {CLUSTER_IP, FREE}
            assert uproxy.reasons("web") == [
                f"externalIP {place.ipv4} is the API server's address; it is not claimed",
                f"load-balancer IP {place.ipv4} is the API server's address; it is not claimed",
            ]
            assert serves(net, FREE)


def test_an_address_at_which_the_api_server_may_be_later_is_not_claimed(
    net: World, backend: Pod, tmp_path: Path
) -> None:
    place, in_reserve = net.node2, "203.0.113.77"
    with api_server(place) as api:
        objects = web(net, external=[in_reserve], ingress=[FREE])
        api.call(lambda server: server.apply(node("here", net.node.ipv4), *objects))
        config = write_kubeconfig(tmp_path / "kubeconfig", "http://203.0.113.78:6443")
        source = ["--kubeconfig", str(config)]
        given = ("--apiserver-address", f"{place.ipv4}:{api.server.port},{in_reserve}")
        with program(net.node.space, tmp_path, *ANYWHERE, *given, source=source) as uproxy:
            assert claimed(net.node.space) == {CLUSTER_IP, FREE}
            assert uproxy.reasons("web") == [
                f"externalIP {in_reserve} is the API server's address; it is not claimed"
            ]


def test_a_claim_that_cuts_the_api_server_off_is_released(
    net: World, backend: Pod, tmp_path: Path
) -> None:
    """The server is reached through a proxy, so that uproxy cannot know its address."""
    place = net.client
    with api_server(place) as api, forwarder(net.node, place, api.server.port) as port:
        api.call(lambda server: server.apply(node("here", net.node.ipv4)))
        api.call(lambda server: server.apply(*web(net, external=[], ingress=[])))
        config = write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{port}")
        source = ["--kubeconfig", str(config)]
        with program(net.node.space, tmp_path, *ANYWHERE, source=source) as uproxy:
            wait_for("claim", lambda: claimed(net.node.space) == {CLUSTER_IP})
            cutting = web(net, external=[place.ipv4], ingress=[])
            api.call(lambda server: server.apply(*cutting))
            wait_for("claim", lambda: place.ipv4 in claimed(net.node.space))
            wait_for("release", lambda: claimed(net.node.space) == {CLUSTER_IP})
            [reason] = uproxy.reasons("web")
            assert "stopped answering within 10 s of the claim; it is not claimed" in reason
            api.call(lambda server: server.apply(*web(net, external=[FREE], ingress=[])))
            wait_for("following again", lambda: FREE in claimed(net.node.space), patience=40)
            assert place.ipv4 not in claimed(net.node.space)
            assert f"stopped answering right after {place.ipv4} was claimed" in uproxy.log


_FORWARDER = """
import asyncio, sys

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    writer.close()

async def serve(reader, writer):
    try:
        async with asyncio.timeout(1):
            there, back = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    except (OSError, TimeoutError):
        writer.close()
        return
    await asyncio.gather(pump(reader, back), pump(there, writer))

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def forwarder(here: Place, there: Place, port: int) -> Iterator[int]:
    """A port on this node's loopback that leads to another place, as kubespray's nginx does."""
    words = here.space.command(sys.executable, "-c", _FORWARDER, there.ipv4, str(port))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()
