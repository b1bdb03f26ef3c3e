"""A NetworkPolicy that drops what a pod sends is not got around by way of the node's address."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.dataplane.node_worker import dropping
from tests.netns import kit
from tests.netns.kit import World
from tests.netns.node import program, service, slices, wait_for, write
from tests.netns.peers import ask, pod
from uproxy.core.protocols import TCP

pytestmark = kit.needs("nft=nftables")

FLOWS = 10
"""That a client begins at a time. Either worker gets some of them."""


def web(name: str, port: int) -> dict[str, Any]:
    """Pods are shown at its NodePort."""
    return service(
        name,
        ports=[{"name": "t", "port": 80, "nodePort": port, "protocol": "TCP"}],
        externalTrafficPolicy="Local",
        ipFamilies=["IPv4", "IPv6"],
        ipFamilyPolicy="RequireDualStack",
    )


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_denied_pod_is_never_answered(net: World, manifests: Path, family: str) -> None:
    """Neither worker has to see for itself that replies come back, nor that those of the guarded
    Service do: one reply of any other Service to any other pod of this node is enough."""
    allowed, denied, node = net.local[0], net.local[1], net.node.address(family)
    write(
        manifests, "open.yaml", web("open", 30080), *slices("open", [(net.remote[0], "x", "ready")])
    )
    write(
        manifests,
        "guarded.yaml",
        web("guarded", 30081),
        *slices("guarded", [(net.remote[0], "x", "ready")], port=8081),
    )
    policy = f"{'ip6' if family == 'IPv6' else 'ip'} saddr {denied.address(family)}"
    options = ("--cluster-cidr", "198.51.100.0/24,2001:db8:2::/63")
    with (
        pod("open", net.remote[0]),
        pod("guarded", net.remote[0], 8081) as guarded,
        dropping(net.remote[0], policy),
        program(net.node.space, manifests, *options, workers=2) as uproxy,
        ThreadPoolExecutor(FLOWS) as pool,
    ):
        assert ask(allowed.space, TCP, node, 30080) == f"open {allowed.address(family)}"
        wait_for("the path to be proven", lambda: f"come back on the path {family}" in uproxy.log)
        for _ in range(2):
            answers = pool.map(lambda _: ask(denied.space, TCP, node, 30081), range(FLOWS))
            assert set(answers) == {"reset"}
        assert ask(allowed.space, TCP, node, 30081) == f"guarded {allowed.address(family)}"
        assert {client for _, client, _ in guarded.seen} == {allowed.address(family)}
        status = uproxy.status()
        assert {each["clientAddressReason"] for each in status["frontends"]} == {""}
        assert {each["counts"]["masqueraded"] for each in status["frontends"]} == {0}
