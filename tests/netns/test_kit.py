"""The network that the other tests here run in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.netns import kit
from tests.netns.kit import PodNetwork, World, world
from tests.netns.node import program, service, slices, write
from tests.netns.peers import REFUSED, ask, ping, pod

pytestmark = kit.needs()


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_everyone_reaches_every_pod(net: World, family: str, protocol: str) -> None:
    sources = (net.client, net.node, net.node2, net.local[0], net.remote[0])
    for place in (net.local[1], net.remote[0]):
        with pod("it", place) as target:
            for source in sources:
                answer = ask(source.space, protocol, place.address(family), target.port)
                # A router speaks to its own pods with the address of their bridge.
                assert answer.split()[0] == "it", source
                if source in (net.client, net.local[0]):
                    assert answer == f"it {source.address(family)}"
    assert ask(net.client.space, protocol, net.node.address(family), 9) == REFUSED


@pytest.mark.parametrize("pods", PodNetwork, ids=lambda each: str(each.value))
def test_every_kind_of_pod_network(pods: PodNetwork) -> None:
    with world(local=2, remote=1, pods=pods) as net:
        for source in (net.client, net.node, net.node2, net.local[0], net.remote[0]):
            for place in (net.local[1], net.remote[0]):
                for address in (place.ipv4, place.ipv6):
                    assert ping(source.space, address) == address, source
        with pod("it", net.local[1]) as target:
            source = net.local[0]
            assert ask(source.space, "TCP", net.local[1].ipv4, target.port) == f"it {source.ipv4}"
            assert ask(source.space, "TCP", net.local[1].ipv6, target.port) == f"it {source.ipv6}"
            for address in (net.local[1].ipv4, net.local[1].ipv6):
                answer = ask(net.node.space, "TCP", address, target.port)
                assert answer.split()[1] in net.node_addresses


def test_a_program_runs_in_it(net: World, tmp_path: Path) -> None:
    directory = tmp_path / "manifests"
    directory.mkdir()
    web = service("web", ports=[{"name": "t", "port": 80, "nodePort": 30080}])
    write(directory, "web.yaml", web, *slices("web", [(net.local[0], "here", "ready")]))
    with pod("a", net.local[0]), program(net.node.space, directory) as uproxy:
        assert ask(net.client.space, "TCP", net.node.ipv4, 30080) == "a 198.51.100.1"
        assert uproxy.stop() == 0


def test_nothing_is_left() -> None:
    mine = f"uproxy-test-{os.getpid()}-"
    before = {name for name in os.listdir("/run/netns") if name.startswith(mine)}
    with pytest.raises(RuntimeError, match="on purpose"), world(local=1, remote=0):
        raise RuntimeError("on purpose")
    after = {name for name in os.listdir("/run/netns") if name.startswith(mine)}
    assert after == before
