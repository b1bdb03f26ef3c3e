"""What `uproxy doctor` finds out about announcing addresses of load balancers."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.views import frontend, status
from uproxy.cli.doctor import load_balancer_facts as facts
from uproxy.cli.doctor.findings import Finding, Result
from uproxy.cli.doctor.load_balancer import check_load_balancer
from uproxy.cli.doctor.load_balancer_facts import Announcing, InterfaceAddress
from uproxy.core.allocation.pool_syntax import parse_pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import (
    AddressStatus,
    LoadBalancerStatus,
    PoolStatus,
    ServiceAddresses,
)
from uproxy.core.report.load_balancer_format import LoadBalancerView, load_balancer_view
from uproxy.host import netlink
from uproxy.host.segments import Segment

ETH0 = Segment(index=2, mac="02:00:00:00:00:01", carrier=True, subnets=("192.0.2.0/24",))
WLAN0 = Segment(
    index=3, mac="02:00:00:00:00:02", carrier=True, subnets=("198.51.100.0/24",), wireless=True
)
POOL = {"default": (AddressRange.parse("192.0.2.192/27"),)}
POOL6 = {"six": (AddressRange.parse("2001:db8::/120"),)}
WEB = ObjectName("default", "web")
GOOD: dict[str, Any] = {
    "pools": POOL,
    "capabilities": frozenset(("NET_ADMIN", "NET_RAW")),
    "segments": {"eth0": ETH0},
    "own": {"192.0.2.1": "this node's gateway"},
    "arp_ignore": {"eth0": 0},
}


def findings(**parts: Any) -> dict[str, Finding]:
    found = list(check_load_balancer(Announcing(**(GOOD | parts))))
    assert len({each.check for each in found}) == len(found)
    return {each.check: each for each in found}


def shown(**parts: Any) -> LoadBalancerView:
    return load_balancer_view(LoadBalancerStatus(**parts), lambda _: True)


@pytest.mark.parametrize("announce", ["l2", "routes", "never"])
def test_a_good_machine_needs_no_advice(announce: str) -> None:
    found = findings(announce=announce, status=shown(pools=(PoolStatus(name="default"),)))
    assert {(each.result, each.advice) for each in found.values()} == {(Result.OK, "")}


@pytest.mark.parametrize(
    ("parts", "name", "text", "advice"),
    [
        pytest.param(
            {"capabilities": frozenset()},
            "announcing",
            "CAP_NET_ADMIN is missing",
            "grant CAP_NET_ADMIN",
            id="no privilege",
        ),
        pytest.param(
            {"capabilities": frozenset(("NET_ADMIN",))},
            "announcing",
            "CAP_NET_RAW is missing",
            "grant CAP_NET_RAW",
            id="no raw sockets",
        ),
        pytest.param(
            {"capabilities": frozenset(), "announce": "routes"},
            "announcing",
            "no route can be added",
            "grant CAP_NET_ADMIN",
            id="no routes",
        ),
        pytest.param(
            {"in_pod_network": True},
            "network namespace",
            "network of its own",
            "hostNetwork: true",
            id="a Pod without the node's network",
        ),
        pytest.param(
            {"segments": {"wlan0": WLAN0}},
            "pools and subnets",
            "192.0.2.192-192.0.2.223 of pool default: no interface of this machine has this subnet"
            " (wlan0 198.51.100.0/24)",
            "--announce routes",
            id="outside every subnet",
        ),
        pytest.param(
            {"pools": {"p": (AddressRange.parse("192.0.2.200-192.0.3.9"),)}},
            "pools and subnets",
            "192.0.2.200-192.0.3.9 of pool p",
            "--lb node",
            id="partly outside",
        ),
        pytest.param(
            {"segments": {}},
            "pools and subnets",
            "(it has none)",
            "--lb node",
            id="no interface",
        ),
        pytest.param(
            {
                "segments": {"wlan0": WLAN0},
                "pools": {"p": (AddressRange.parse("198.51.100.7"),)},
            },
            "wireless",
            "wlan0",
            "ip link set wlan0 promisc on",
            id="Wi-Fi",
        ),
        pytest.param(
            {"segments": {"eth0": replace(ETH0, carrier=False)}},
            "carrier",
            "eth0 has no carrier: this node announces no address there until it has",
            "ip link set eth0 up",
            id="no carrier",
        ),
        pytest.param(
            {"segments": {"eth0": ETH0, "eth1": replace(ETH0, index=7)}},
            "one interface",
            "eth0 and eth1 are both in 192.0.2.0/24",
            "bond, or: sysctl net.ipv4.conf.all.arp_ignore=1",
            id="two interfaces",
        ),
        pytest.param(
            {
                "segments": {"eth0": ETH0, "eth1": replace(ETH0, index=7)},
                "arp_ignore": {"eth0": 1, "eth1": 0},
            },
            "one interface",
            "either answers for an address",
            "arp_announce=2",
            id="two interfaces, one of which answers for all",
        ),
        pytest.param(
            {"programs": ("k3s ServiceLB (a pod svclb-...)",)},
            "other announcers",
            "k3s ServiceLB (a pod svclb-...) runs here",
            "stop it",
            id="k3s ServiceLB",
        ),
        pytest.param(
            {"arp_ignore": {"eth0": 2}}, "ARP", "arp_ignore is 2", "to 0 or 1", id="silent to all"
        ),
        pytest.param({"arp_ignore": {"eth0": 8}}, "ARP", "to no machine", "to 0 or 1", id="silent"),
        pytest.param(
            {"proxies": ("kube-proxy in mode ipvs (interface kube-ipvs0)",)},
            "ARP",
            "every node does",
            "--ipvs-strict-arp",
            id="IPVS without strict ARP",
        ),
        pytest.param(
            {
                "pools": POOL | POOL6,
                "without_ipv6": frozenset(("eth0", "docker0")),
                "segments": {
                    "eth0": Segment(
                        index=2,
                        mac="02:00:00:00:00:01",
                        carrier=True,
                        subnets=("192.0.2.0/24", "2001:db8::/64"),
                    )
                },
            },
            "IPv6 of pools",
            "switched off on eth0",
            "net.ipv6.conf.eth0.disable_ipv6=0",
            id="IPv6 is off",
        ),
        pytest.param(
            {"leased": {"192.0.2.77": "eth0"}},
            "DHCP",
            "192.0.2.77 on eth0 comes from DHCP",
            "out of its range",
            id="DHCP",
        ),
        pytest.param(
            {"own": {"192.0.2.200": "the ClusterIP of default/dns"}},
            "addresses in pools",
            "192.0.2.200 of pool default is the ClusterIP of default/dns",
            "--lb-reserve",
            id="overlap",
        ),
        pytest.param(
            {"programs": ("MetalLB's speaker",)},
            "other announcers",
            "MetalLB's speaker runs here",
            "stop it",
            id="MetalLB",
        ),
        pytest.param(
            {
                "status": shown(
                    addresses=(
                        AddressStatus(
                            address="192.0.2.192", services=(WEB,), conflict="02:00:00:00:00:07"
                        ),
                    )
                )
            },
            "load balancer",
            "192.0.2.192 is also answered for by 02:00:00:00:00:07",
            "MAC address",
            id="contradicted",
        ),
        pytest.param(
            {"status": shown(services=(ServiceAddresses(service=WEB, foreign="of a cloud"),))},
            "load balancer",
            "default/web: of a cloud",
            "spec.loadBalancerClass",
            id="another controller",
        ),
        pytest.param(
            {
                "status": shown(
                    trouble="the Lease cannot be written",
                    notes=("no raw sockets",),
                    pools=(PoolStatus(name="p", reason="no L2Advertisement"),),
                )
            },
            "load balancer",
            "the Lease cannot be written; no raw sockets; pool p: no L2Advertisement",
            "uproxy status",
            id="trouble",
        ),
    ],
)
def test_findings(parts: dict[str, Any], name: str, text: str, advice: str) -> None:
    found = findings(**parts)[name]
    assert (found.result, text in found.text, advice in found.advice) == (Result.WARN, True, True)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        pytest.param(
            {
                "proxies": ("kube-proxy in mode ipvs (interface kube-ipvs0)",),
                "arp_ignore": {"eth0": 1},
            },
            "ARP",
            id="IPVS with strict ARP",
        ),
        pytest.param({"arp_ignore": {"docker0": 8, "eth0": 1}}, "ARP", id="of another interface"),
        pytest.param({"leased": {"203.0.113.7": "eth1"}}, "DHCP", id="DHCP on another interface"),
        pytest.param({"without_ipv6": frozenset(("eth0",))}, "IPv6 of pools", id="IPv4 pools"),
        pytest.param({"segments": {"eth0": ETH0, "wlan0": WLAN0}}, "wireless", id="Wi-Fi beside"),
        pytest.param(
            {"segments": {"eth0": ETH0, "eth1": replace(WLAN0, carrier=False)}},
            "carrier",
            id="no carrier elsewhere",
        ),
        pytest.param(
            {"segments": {"eth0": ETH0, "eth1": WLAN0}}, "one interface", id="two subnets"
        ),
        pytest.param(
            {
                "segments": {"eth0": ETH0, "eth1": replace(ETH0, index=7)},
                "arp_ignore": {"eth0": 1, "eth1": 2},
            },
            "one interface",
            id="two interfaces that answer for their own",
        ),
    ],
)
def test_what_is_well(parts: dict[str, Any], name: str) -> None:
    assert findings(**parts)[name].result is Result.OK


def test_a_network_namespace_is_only_known_not_to_be_that_of_a_pod() -> None:
    """That of rootless k3s, for example, does not have the interfaces of the machine."""
    assert findings()["network namespace"].text == "this is not a Pod with a network of its own"


def test_without_pools_only_what_matters_is_asked() -> None:
    """Addresses of nodes need no announcing."""
    found = findings(pools={}, status=shown(mode="node"), capabilities=frozenset())
    assert "announcing" not in found
    assert {each.result for each in found.values()} == {Result.OK}


class TestFacts:
    def test_no_pool_and_no_uproxy_is_nothing_to_check(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(facts, "running_status", lambda _: None)
        assert facts.examine_load_balancer(()) is None
        found = facts.examine_load_balancer([parse_pool("192.0.2.1"), parse_pool("a=192.0.2.2")])
        assert found is not None
        assert {name: list(map(str, each)) for name, each in found.pools.items()} == {
            "default": ["192.0.2.1"],
            "a": ["192.0.2.2"],
        }

    def test_pools_and_addresses_of_a_running_uproxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = PoolStatus(name="p", ranges=("192.0.2.8/30", "a newer notation"))
        view = status(
            frontends=[
                frontend("default/web", kind="ClusterIP", address="192.0.2.9"),
                frontend("default/six", backends=["[2001:db8::7]:80", "odd"]),
            ],
            load_balancer=shown(announce="routes", pools=(pool,)),
        )
        monkeypatch.setattr(facts, "running_status", lambda _: view)
        found = facts.examine_load_balancer(())
        assert found is not None
        assert list(map(str, found.pools["p"])) == ["192.0.2.8-192.0.2.11"]
        assert found.announce == "routes"
        assert found.own["192.0.2.9"] == "the ClusterIP of default/web"
        assert found.own["2001:db8::7"] == "the address of a pod of default/six"
        assert found.own["127.0.0.1"] == "an address of this node"

    def test_addresses_of_interfaces(self) -> None:
        def message(address: bytes, flags: int, *more: bytes) -> memoryview:
            body = netlink.ADDRESS.pack(2, 24, 0, 0, 2) + netlink.attribute(2, address)
            body += netlink.attribute(8, struct.pack("=I", flags))
            return memoryview(body + b"".join(more))

        ours = netlink.attribute(11, b"\x75")
        found = facts.interface_addresses(
            [
                message(bytes((192, 0, 2, 1)), 0x80),
                message(bytes((192, 0, 2, 2)), 0),
                message(bytes((192, 0, 2, 3)), 0, ours),
            ]
        )
        assert list(found) == [
            InterfaceAddress("192.0.2.1", 2, True),
            InterfaceAddress("192.0.2.2", 2, False),
        ]

    def test_settings_of_the_kernel(self, tmp_path: Path) -> None:
        for name, ignored, disabled in (("all", 1, 0), ("eth0", 2, 1), ("eth1", 0, 0)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "arp_ignore").write_text(f"{ignored}\n")
            (tmp_path / name / "disable_ipv6").write_text(f"{disabled}\n")
        assert dict(facts.arp_ignore(tmp_path)) == {"eth0": 2, "eth1": 1}
        assert list(facts.without_ipv6(tmp_path)) == ["eth0"]

    @pytest.mark.parametrize(
        ("comm", "command", "environ", "found"),
        [
            pytest.param(
                "speaker", "/speaker\0--port=7472\0", "", ["MetalLB's speaker"], id="MetalLB"
            ),
            pytest.param("speaker", "speaker\0-volume\x007", "", [], id="a loudspeaker"),
            pytest.param("kube-vip", "/kube-vip\0manager", "", ["kube-vip"], id="kube-vip"),
            pytest.param("bash", "bash", "", [], id="a shell"),
            pytest.param(
                "entry",
                "/bin/sh\0/usr/bin/entry\0",
                "PATH=/bin\0SRC_PORT=80\0DEST_PORT=80\0",
                ["k3s ServiceLB (a pod svclb-...)"],
                id="k3s ServiceLB",
            ),
            pytest.param("entry", "/bin/sh\0/usr/bin/entry\0", "", [], id="another script"),
        ],
    )
    def test_programs(
        self, tmp_path: Path, comm: str, command: str, environ: str, found: list[str]
    ) -> None:
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / "comm").write_text(f"{comm}\n")
        (tmp_path / "7" / "cmdline").write_text(command)
        (tmp_path / "7" / "environ").write_text(environ)
        (tmp_path / "8").mkdir()
        assert list(facts.programs(tmp_path)) == found

    @pytest.mark.parametrize(
        ("interfaces", "in_pod", "expected"),
        [
            pytest.param(["lo", "eth0"], True, True, id="a Pod's own"),
            pytest.param(["lo", "eth0", "veth1"], True, False, id="a node's"),
            pytest.param(["lo", "eth0"], False, False, id="a machine"),
        ],
    )
    def test_whose_network(self, interfaces: list[str], in_pod: bool, expected: bool) -> None:
        variables = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"} if in_pod else {}
        assert facts.in_pod_network(interfaces, variables) is expected
