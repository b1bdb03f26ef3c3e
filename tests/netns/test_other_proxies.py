"""Other service proxies are found by what they leave in the kernel of a node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, namespace
from uproxy.host.other_proxies import find_other_proxies

pytestmark = kit.needs("nft=nftables")


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace("node") as made, made.inside():
        yield made


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        pytest.param([], (), id="nothing"),
        pytest.param(
            ["nft add table ip6 kube-proxy"],
            ("kube-proxy in mode nftables (table kube-proxy)",),
            id="nftables",
        ),
        pytest.param(
            ["nft add table ip nat", "nft add chain ip nat KUBE-SERVICES"],
            ("kube-proxy in mode iptables (chain KUBE-SERVICES)",),
            id="iptables",
        ),
        pytest.param(
            ["nft add table ip nat", "nft add chain ip nat KUBE-KUBELET-CANARY"], (), id="kubelet"
        ),
        pytest.param(
            ["ip link add kube-ipvs0 type bridge", "ip link add cilium_host type bridge"],
            (
                "kube-proxy in mode ipvs (interface kube-ipvs0)",
                "Cilium (interface cilium_host)",
            ),
            id="ipvs and Cilium",
        ),
    ],
)
def test_what_is_found(space: Namespace, commands: list[str], expected: tuple[str, ...]) -> None:
    for command in commands:
        space.run(*command.split())
    assert find_other_proxies() == expected
