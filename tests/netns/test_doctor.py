"""What the real doctor finds on a machine whose network has faults."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from tests.netns import kit

FOUND: Final = {
    "br_netfilter": (
        "warn",
        "not in use, but kube-proxy needs it: its Services give pods behind cni0 no answer from "
        "backends on the same bridge",
    ),
    "tcp_migrate_req": ("ok", "on; uproxy works with it and without it"),
    "other proxies": (
        "warn",
        "kube-proxy in mode ipvs (interface kube-ipvs0): its rules take packets before uproxy does",
    ),
    "carrier": ("warn", "eth2 has no carrier: this node announces no address there until it has"),
    "ARP": (
        "warn",
        "kube-ipvs0 has the addresses of all Services, and the kernel answers for them on eth0; "
        "eth1; eth2: every node does, whichever announces an address",
    ),
    "one interface": (
        "warn",
        "eth0 and eth1 are both in 192.0.2.0/24: either answers for an address, and neighbours may "
        "take the wrong one",
    ),
    "wireless": ("ok", "pools are not on wireless interfaces"),
}


@pytest.fixture(scope="module")
def findings() -> Iterator[dict[str, dict[str, str]]]:
    with kit.namespace("doctor") as machine:
        machine.ip(
            *(f"link add eth{each} type veth peer name other{each}" for each in range(3)),
            "addr add 192.0.2.1/24 dev eth0",
            "addr add 192.0.2.2/24 dev eth1",
            "addr add 198.51.100.1/24 dev eth2",
            *(f"link set {each} up" for each in ("eth0", "other0", "eth1", "other1", "eth2")),
            "link add cni0 type bridge",
            "link add kube-ipvs0 type veth peer name ipvs",
        )
        machine.sysctl(ipv4__tcp_migrate_req=1)
        if kit.HAS_BRIDGE_FILTER:
            machine.write_sysctls({"bridge/bridge-nf-call-iptables": 0})
        pools = ("--lb-pool", "192.0.2.128/27", "--lb-pool", "other=198.51.100.128/27")
        command = (sys.executable, "-m", "uproxy.cli", "doctor", "-o", "json", *pools)
        yield {each["check"]: each for each in json.loads(machine.run(*command))}


@pytest.mark.parametrize("check", FOUND)
def test_findings(findings: dict[str, dict[str, str]], check: str) -> None:
    found = findings[check]
    assert (found["result"], found["text"]) == FOUND[check]
    assert bool(found["advice"]) == (found["result"] == "warn")
