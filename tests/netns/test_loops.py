"""Backends that lead back to uproxy in ways that neither objects nor interfaces show."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.kit import Place, World, wait_listening
from tests.netns.node import Node, program, service, slices, wait_for, write
from tests.netns.peers import RESET, ask

pytestmark = kit.needs()

NUMBER = 30080
HIDDEN = "10.99.0.5"
"""An address of the node that no interface has."""


def web(backend: Place) -> list[dict[str, Any]]:
    """A Service whose only endpoint is a NodePort of that number."""
    ports = [
        {"name": protocol[0].lower(), "port": 80, "protocol": protocol, "nodePort": NUMBER}
        for protocol in ("TCP", "UDP")
    ]
    wanted = service("web", ports=ports, clusterIPs=["203.0.113.1"])
    return [wanted, *slices("web", [(backend, "elsewhere", "ready")], port=NUMBER)]


def counts(node: Node, protocol: str) -> dict[str, Any]:
    return node.counts(f"0.0.0.0:{NUMBER}/{protocol}")


def loops(node: Node, protocol: str) -> int:
    number: int = counts(node, protocol)["dropped"].get("loop", 0)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_that_no_interface_has(net: World, manifests: Path, workers: int) -> None:
    net.node.space.ip(f"route replace local {HIDDEN}/32 dev lo")
    write(manifests, "web.yaml", *web(Place(net.node.space, HIDDEN, "2001:db8:99::5")))
    with program(net.node.space, manifests, workers=workers) as node:
        wait_listening(net.node.space, net.node.ipv4, NUMBER)
        assert ask(net.client.space, "TCP", net.node.ipv4, NUMBER) == RESET
        wait_for("a reason", lambda: loops(node, "TCP"))
        wait_for("the end of all", lambda: not counts(node, "TCP")["activeFlows"])
        assert counts(node, "TCP")["flows"] < 200 * workers
        ask(net.client.space, "UDP", net.node.ipv4, NUMBER, patience=0.1)
        wait_for("a reason", lambda: loops(node, "UDP"))
        assert counts(node, "UDP")["flows"] < 1000 * workers


def test_two_nodes_with_each_other_for_a_backend(net: World, tmp_path: Path) -> None:
    with ExitStack() as stack:
        nodes = []
        for here, other in ((net.node, net.node2), (net.node2, net.node)):
            directory = tmp_path / here.space.role
            directory.mkdir()
            write(directory, "web.yaml", *web(other))
            nodes.append(stack.enter_context(program(here.space, directory)))
        for _ in range(3):
            assert ask(net.client.space, "TCP", net.node.ipv4, NUMBER) == RESET
        one, two = nodes
        wait_for("a reason", lambda: loops(one, "TCP") or loops(two, "TCP"))
        wait_for("the end of all here", lambda: not counts(one, "TCP")["activeFlows"])
        wait_for("the end of all there", lambda: not counts(two, "TCP")["activeFlows"])
        assert counts(one, "TCP")["flows"] + counts(two, "TCP")["flows"] < 500
