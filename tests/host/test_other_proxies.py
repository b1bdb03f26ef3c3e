"""Other service proxies on this node, by what they leave in the kernel."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from uproxy.host.other_proxies import ProxyCalls, find_other_proxies

TABLES = "table ip nat\ntable ip6 filter\ntable inet uproxy\n"
CHAINS = "table ip nat {\n\tchain KUBE-SVC-XYZ {\n\t}\n\tchain KUBE-SERVICES {\n\t}\n}\n"
LEGACY = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\nCOMMIT\n"
IPTABLES = "kube-proxy in mode iptables (chain KUBE-SERVICES)"


def found(
    *interfaces: str, tables: str = "", chains: str = "", legacy: str = "", failing: bool = False
) -> Sequence[str]:
    def nft(*words: str) -> str:
        if failing:
            raise OSError(errno.EPERM, "not permitted")
        return tables if words == ("list", "tables") else chains

    calls = ProxyCalls(has_interface=interfaces.__contains__, nft=nft, legacy_chains=lambda: legacy)
    return find_other_proxies(calls)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        pytest.param(found(), [], id="nothing"),
        pytest.param(
            found("kube-ipvs0"), ["kube-proxy in mode ipvs (interface kube-ipvs0)"], id="ipvs"
        ),
        pytest.param(found("cilium_host"), ["Cilium (interface cilium_host)"], id="Cilium"),
        pytest.param(
            found(tables="table ip kube-proxy\ntable ip6 kube-proxy\n"),
            ["kube-proxy in mode nftables (table kube-proxy)"],
            id="nftables",
        ),
        pytest.param(found(tables=TABLES, chains=CHAINS), [IPTABLES], id="iptables"),
        pytest.param(
            found(tables=TABLES, chains=CHAINS.replace("SERVICES", "KUBELET-CANARY")),
            [],
            id="kubelet's chains",
        ),
        pytest.param(found(tables="table ip6 nat\n", chains=CHAINS), [IPTABLES], id="IPv6 alone"),
        pytest.param(found(tables="table inet kube-proxy\n"), [], id="a table of another family"),
        pytest.param(found(legacy=LEGACY), [IPTABLES], id="iptables before nftables"),
        pytest.param(found(legacy=LEGACY.replace(":KUBE", ":MY-KUBE")), [], id="a similar name"),
        pytest.param(found("kube-ipvs0", legacy=LEGACY, failing=True), None, id="nft fails"),
    ],
)
def test_what_is_found(there: Sequence[str], expected: list[str] | None) -> None:
    if expected is None:
        expected = ["kube-proxy in mode ipvs (interface kube-ipvs0)", IPTABLES]
    assert list(there) == expected


def test_this_machine_can_be_asked_whoever_asks() -> None:
    assert all(isinstance(each, str) for each in find_other_proxies())
