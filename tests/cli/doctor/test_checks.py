"""What `uproxy doctor` finds, and what it advises."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from uproxy.cli.commands.doctor import report
from uproxy.cli.doctor.checks import check
from uproxy.cli.doctor.facts import (
    CAPABILITIES,
    Machine,
    capabilities,
    examine,
    has_pods,
    own_ports,
    strict_interfaces,
)
from uproxy.cli.doctor.findings import Finding, Result, failed
from uproxy.cli.doctor.io_uring_facts import IoUring
from uproxy.cli.doctor.limits import Load
from uproxy.cli.output.columns import plain

GOOD: dict[str, Any] = {
    "system": "Linux 6.8.0",
    "python": (3, 12, 1),
    "uvloop": "0.23.0",
    "kubernetes_asyncio": "36.1.0",
    "cpus": 2,
    "capabilities": frozenset(CAPABILITIES),
    "sysctls": {
        "fs.inotify.max_user_instances": "128",
        "fs.inotify.max_user_watches": "65536",
        "fs.pipe-user-pages-soft": "16384",
        "net.core.somaxconn": "4096",
        "net.ipv4.ip_local_port_range": "32768 60999",
        "net.ipv4.ip_unprivileged_port_start": "1024",
        "net.ipv4.tcp_tw_reuse": "2",
    },
    "strict_interfaces": (),
    "descriptors": 1048576,
    "epoll": True,
    "splice": "",
    "io_uring": IoUring(),
    "reuse_port": "",
    "ipv6": "",
    "transparent": "",
    "nft": True,
    "has_pods": True,
    "bridges": ("cni0",),
    "bridge_rules": "",
    "masqueraded": {},
    "proxies": (),
    "own_ports": (10249, 10256),
    "taken_ports": {},
    "service_proxy_name": "",
}
LOAD = Load(max_flows=65536, workers=2)


def findings(load: Load = LOAD, sysctls: dict[str, str] | None = None, **parts: Any) -> Any:
    """Findings by check, for a good machine except for the given facts."""
    facts = GOOD | parts | {"sysctls": GOOD["sysctls"] | (sysctls or {})}
    found = list(check(Machine(**facts), load))
    assert len({each.check for each in found}) == len(found)
    return {each.check: each for each in found}


def test_a_good_machine_needs_no_advice() -> None:
    found = findings()
    assert {each.result for each in found.values()} == {Result.OK}
    assert {each.advice for each in found.values()} == {""}
    assert not failed(found.values())


def test_why_pods_see_the_node() -> None:
    reasons = {"it is so": 2, "it is not": 1, "third": 1, "fourth": 1}
    found = findings(bridge_rules="nft: Operation not supported", masqueraded=reasons)
    assert found["pods behind a bridge"].text == (
        "pods behind cni0 see this node's address in place of each other's: "
        "nft: Operation not supported"
    )
    assert found["clients' addresses"].text == (
        "some Service ports show this node's address to pods: 2 because it is so; "
        "1 because it is not; 1 because third ..."
    )


@pytest.mark.parametrize(
    ("parts", "name", "text"),
    [
        pytest.param({}, "pods behind a bridge", "can be shown to each other", id="bridge"),
        pytest.param(
            {"bridges": ()}, "pods behind a bridge", "this machine has no bridge", id="no bridge"
        ),
        pytest.param(
            {"nft": False},
            "pods behind a bridge",
            "not tried, as that takes nft and CAP_NET_ADMIN",
            id="bridge without nft",
        ),
        pytest.param({}, "clients' addresses", "no uproxy runs here", id="no uproxy"),
        pytest.param(
            {"taken_ports": {10249: "userspace"}},
            "clients' addresses",
            "pods see those that their Services ask for",
            id="a uproxy",
        ),
        pytest.param(
            {"bridges": ()}, "br_netfilter", "this machine has no bridge", id="nothing to filter"
        ),
        pytest.param(
            {"has_pods": False}, "pods behind a bridge", "this machine has no pods", id="no pods"
        ),
        pytest.param(
            {"has_pods": False, "nft": False},
            "nft",
            "not found; it only shows pods the client's address, and this machine has no pods",
            id="no nft, and no pods",
        ),
        pytest.param(
            {},
            "tcp_migrate_req",
            "off, and not needed: clients in the queue of a worker wait for the next worker",
            id="no migration",
        ),
        pytest.param(
            {"sysctls": {"net.ipv4.tcp_migrate_req": "1"}},
            "tcp_migrate_req",
            "on; uproxy works with it and without it",
            id="migration",
        ),
    ],
)
def test_what_is_well_is_named(parts: dict[str, Any], name: str, text: str) -> None:
    assert findings(**parts)[name].text == text


NOBODY: dict[str, Any] = {"capabilities": frozenset()}


@pytest.mark.parametrize(
    ("parts", "name", "result", "words"),
    [
        pytest.param(
            {"bridge_rules": "nft: Operation not supported"},
            "pods behind a bridge",
            "warn",
            "CONFIG_NF_TABLES_BRIDGE",
            id="no nftables for bridges",
        ),
        pytest.param(
            {"bridge_rules": "nft: Operation not supported", "bridges": ()},
            "pods behind a bridge",
            "ok",
            "",
            id="nor a bridge",
        ),
        pytest.param(
            {"bridge_rules": "needs CAP_NET_ADMIN", "capabilities": frozenset()},
            "pods behind a bridge",
            "ok",
            "",
            id="no rules for bridges without the privilege",
        ),
        pytest.param(
            {"masqueraded": {"it is so": 2, "it is not": 1, "third": 1, "fourth": 1}},
            "clients' addresses",
            "warn",
            "uproxy explain",
            id="a running uproxy masquerades",
        ),
        pytest.param({"python": (3, 10, 9)}, "python", "fail", "3.11", id="old Python"),
        pytest.param({"python": (3, 14, 0)}, "python", "ok", "", id="new Python"),
        pytest.param({"uvloop": ""}, "uvloop", "fail", "pip install", id="no uvloop"),
        pytest.param({"uvloop": "0.22.1"}, "uvloop", "fail", "0.23", id="old uvloop"),
        pytest.param({"uvloop": "0.23.0.dev1"}, "uvloop", "ok", "", id="early uvloop"),
        pytest.param({"uvloop": "1.0"}, "uvloop", "ok", "", id="later uvloop"),
        pytest.param(
            {"kubernetes_asyncio": ""}, "kubernetes_asyncio", "warn", "[cluster]", id="no extra"
        ),
        pytest.param({"epoll": False}, "epoll", "fail", "Linux", id="no epoll"),
        pytest.param(
            {"reuse_port": "Protocol not available"},
            "SO_REUSEPORT",
            "fail",
            "share ports",
            id="no SO_REUSEPORT",
        ),
        pytest.param(
            {"splice": "Invalid argument"}, "splice", "warn", "speed", id="splice does not work"
        ),
        pytest.param(
            NOBODY | {"sysctls": {"fs.pipe-user-pages-soft": "1024"}},
            "pipes",
            "warn",
            "sysctl fs.pipe-user-pages-soft=",
            id="few pipes",
        ),
        pytest.param(
            {"sysctls": {"fs.pipe-user-pages-soft": "1024"}}, "pipes", "ok", "", id="root's pipes"
        ),
        pytest.param(
            NOBODY | {"sysctls": {"fs.pipe-user-pages-soft": "0"}},
            "pipes",
            "ok",
            "",
            id="0 is no limit",
        ),
        pytest.param(
            {"ipv6": "Cannot assign requested address"},
            "IPv6",
            "warn",
            "disable_ipv6=0",
            id="no IPv6",
        ),
        pytest.param(NOBODY, "ports below 1024", "warn", "CAP_NET_BIND_SERVICE", id="low ports"),
        pytest.param(
            NOBODY | {"sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"}},
            "ports below 1024",
            "ok",
            "",
            id="low ports for everybody",
        ),
        pytest.param(NOBODY, "CAP_NET_ADMIN", "warn", "grant", id="no NET_ADMIN"),
        pytest.param(
            {"transparent": "Operation not permitted"},
            "IP_TRANSPARENT",
            "warn",
            "PROXY",
            id="no IP_TRANSPARENT",
        ),
        pytest.param({"nft": False}, "nft", "warn", "nftables", id="no nft"),
        pytest.param({"nft": False, "has_pods": False}, "nft", "ok", "", id="no nft, and no pods"),
        pytest.param(
            {"transparent": "Operation not permitted", "has_pods": False},
            "IP_TRANSPARENT",
            "ok",
            "",
            id="no IP_TRANSPARENT, and no pods",
        ),
        pytest.param(
            {"bridge_rules": "nft: Operation not supported", "has_pods": False},
            "pods behind a bridge",
            "ok",
            "",
            id="a bridge, and no pods",
        ),
        pytest.param(
            {"proxies": ("kube-proxy in mode iptables (chain KUBE-SERVICES)",)},
            "br_netfilter",
            "warn",
            "modprobe br_netfilter; sysctl net.bridge.bridge-nf-call-iptables=1",
            id="kube-proxy without br_netfilter",
        ),
        pytest.param(
            {
                "taken_ports": {10249: "ipvs"},
                "sysctls": {"net.bridge.bridge-nf-call-iptables": "0"},
            },
            "br_netfilter",
            "warn",
            "modprobe br_netfilter",
            id="kube-proxy with br_netfilter switched off",
        ),
        pytest.param(
            {
                "taken_ports": {10249: "ipvs"},
                "sysctls": {"net.bridge.bridge-nf-call-iptables": "1"},
            },
            "br_netfilter",
            "ok",
            "",
            id="kube-proxy with br_netfilter",
        ),
        pytest.param(
            {"proxies": ("Cilium (interface cilium_host)",)},
            "br_netfilter",
            "ok",
            "",
            id="Cilium without br_netfilter",
        ),
        pytest.param(
            {"taken_ports": {10249: "userspace"}},
            "br_netfilter",
            "ok",
            "",
            id="uproxy without br_netfilter",
        ),
        pytest.param(
            {"strict_interfaces": ("eth0", "eth1")},
            "rp_filter",
            "warn",
            "rp_filter=2",
            id="strict rp_filter",
        ),
        pytest.param(
            {"strict_interfaces": ("eth0",)}, "rp_filter", "ok", "", id="one strict interface"
        ),
        pytest.param(
            {"sysctls": {"net.core.somaxconn": "128"}},
            "backlog",
            "warn",
            "somaxconn=4096",
            id="short backlog",
        ),
        pytest.param(
            {"sysctls": {"net.ipv4.tcp_tw_reuse": "0"}},
            "TIME_WAIT",
            "warn",
            "tcp_tw_reuse=1",
            id="no tcp_tw_reuse",
        ),
        pytest.param(
            {"sysctls": {"fs.inotify.max_user_watches": "100"}},
            "inotify",
            "warn",
            "max_user_watches",
            id="few watches",
        ),
        pytest.param(
            {"sysctls": {"fs.inotify.max_user_instances": "2"}},
            "inotify",
            "warn",
            "max_user_instances",
            id="few instances",
        ),
        pytest.param(
            {"taken_ports": {10249: "iptables", 10256: ""}},
            "other proxies",
            "warn",
            "--cleanup",
            id="kube-proxy",
        ),
        pytest.param(
            {"proxies": ("kube-proxy in mode nftables (table kube-proxy)",)},
            "other proxies",
            "warn",
            "--cleanup",
            id="rules of kube-proxy",
        ),
        pytest.param(
            {"taken_ports": {10249: "userspace", 10256: ""}},
            "other proxies",
            "ok",
            "",
            id="uproxy itself",
        ),
        pytest.param(
            {"taken_ports": {10256: ""}},
            "other proxies",
            "warn",
            "--healthz-bind-address",
            id="somebody else",
        ),
        pytest.param({"descriptors": 64}, "descriptors", "fail", "LimitNOFILE", id="64 files"),
        pytest.param(
            {"descriptors": 1024}, "descriptors", "warn", "ulimit -Hn 66560", id="1024 files"
        ),
        pytest.param(
            {"descriptors": 1024, "load": Load(500, 1)}, "descriptors", "warn", "2024", id="500"
        ),
        pytest.param(
            {"descriptors": 4096, "load": Load(1000, 1)}, "descriptors", "ok", "", id="enough"
        ),
    ],
)
def test_check(parts: dict[str, Any], name: str, result: str, words: str) -> None:
    found = findings(**parts)
    finding: Finding = found[name]
    assert finding.result == result
    assert words in finding.advice
    assert bool(finding.advice) == (result != "ok")
    assert failed(found.values()) == (result == "fail")


@pytest.mark.parametrize(
    ("ephemeral", "reserved", "advice"),
    [
        pytest.param("32768 60999", "", "", id="the default"),
        pytest.param("10240 65535", "", "30000-32767", id="all of them"),
        pytest.param("32000 60999", "", "32000-32767", id="some of them"),
        pytest.param("1024 30001", "8080", "8080,30000-30001", id="from below"),
        pytest.param("10240 65535", "30000-32767", "", id="reserved"),
        pytest.param("10240 65535", "80,29000-31000,31001-33000", "", id="in two parts"),
        pytest.param(
            "10240 65535",
            "30000-31000,31002-32767",
            "30000-31000,31002-32767,30000-32767",
            id="but for one",
        ),
    ],
)
def test_ephemeral_ports(ephemeral: str, reserved: str, advice: str) -> None:
    found = findings(
        sysctls={
            "net.ipv4.ip_local_port_range": ephemeral,
            "net.ipv4.ip_local_reserved_ports": reserved,
        }
    )["NodePorts"]
    expected = f"sysctl net.ipv4.ip_local_reserved_ports={advice}" if advice else ""
    assert found.advice == expected
    assert found.result == ("warn" if advice else "ok")


def test_unknown_facts_give_no_warning() -> None:
    machine = Machine(**(GOOD | {"sysctls": {}, "taken_ports": {}}))
    assert {each.result for each in check(machine, LOAD)} == {Result.OK}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n", set(), id="none"),
        pytest.param("CapEff:\t000001ffffffffff\n", set(CAPABILITIES), id="all"),
        pytest.param("CapEff:\t0000000000000400\n", {"NET_BIND_SERVICE"}, id="one"),
        pytest.param("Name:\tpython\n", set(), id="not said"),
    ],
)
def test_capabilities(text: str, names: set[str]) -> None:
    assert capabilities(text) == names


@pytest.mark.parametrize(
    ("everywhere", "values", "names"),
    [
        pytest.param(0, {"eth0": 0, "lo": 1, "default": 1}, [], id="off"),
        pytest.param(0, {"eth1": 1, "eth0": 1, "eth2": 0}, ["eth0", "eth1"], id="some"),
        pytest.param(1, {"eth0": 0, "lo": 0, "default": 0}, ["eth0"], id="all"),
        pytest.param(1, {"eth0": 2}, [], id="loose here"),
        pytest.param(2, {"eth0": 1}, [], id="loose everywhere"),
    ],
)
def test_strict_interfaces(
    tmp_path: Path, everywhere: int, values: dict[str, int], names: list[str]
) -> None:
    for name, value in {"all": everywhere, **values}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "rp_filter").write_text(f"{value}\n")
    assert list(strict_interfaces(tmp_path)) == names


@pytest.mark.parametrize(
    ("environ", "path", "found"),
    [
        pytest.param({}, "etc/hosts", False, id="a laptop"),
        pytest.param({}, "etc/cni/net.d/.keep", False, id="no network plugin yet"),
        pytest.param({}, "etc/cni/net.d/10-flannel.conflist", True, id="a network plugin"),
        pytest.param({}, "var/lib/kubelet/config.yaml", True, id="a kubelet"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "etc/hosts", True, id="a Pod"),
    ],
)
def test_which_machines_have_pods(
    tmp_path: Path, environ: dict[str, str], path: str, found: bool
) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert has_pods(environ, tmp_path) is found


def test_directories_that_only_root_may_look_at_are_there_because_of_pods(tmp_path: Path) -> None:
    """kubeadm creates /etc/cni/net.d with mode 0700."""
    (closed := tmp_path / "etc/cni/net.d").mkdir(parents=True)
    tmp_path.chmod(0)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)
        assert has_pods({}, tmp_path)
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    assert not has_pods({}, tmp_path), f"{closed} is empty"


def test_kube_proxy_stays_where_uproxy_serves_only_labelled_services() -> None:
    facts: dict[str, Any] = {
        "proxies": ["kube-proxy (iptables)"],
        "service_proxy_name": "uproxy",
    }
    found = findings(own_ports=(10350, 10356), **facts)["other proxies"]
    assert (found.result, found.text) == (Result.OK, "ports 10350 and 10356 are free")
    found = findings(taken_ports={10256: "iptables"}, **facts)["other proxies"]
    assert found.result == Result.WARN
    assert "--healthz-bind-address" in found.advice


@pytest.mark.parametrize(
    ("environ", "ports"),
    [
        ({}, (10249, 10256)),
        ({"UPROXY_METRICS_BIND_ADDRESS": "127.0.0.1:10350"}, (10350, 10256)),
        ({"UPROXY_HEALTHZ_BIND_ADDRESS": "[::]:10356"}, (10249, 10356)),
        ({"UPROXY_HEALTHZ_BIND_ADDRESS": ""}, (10249, 10256)),
    ],
)
def test_where_the_ports_of_a_pod_are(environ: dict[str, str], ports: tuple[int, int]) -> None:
    assert own_ports(environ) == ports


def test_this_machine_can_be_examined() -> None:
    machine = examine()
    assert machine.epoll
    assert machine.python >= (3, 11)
    assert machine.uvloop
    assert machine.cpus >= 1
    assert machine.descriptors > 0
    assert list(check(machine, LOAD))


def test_report() -> None:
    found = [
        Finding("python", Result.OK, "3.12"),
        Finding("nft", Result.WARN, "not found", "install the package nftables"),
    ]
    assert list(report(found, width=None, paint=plain)) == [
        "CHECK   RESULT  FOUND",
        "python  ok      3.12",
        "nft     warn    not found",
        "                -> install the package nftables",
        "",
        "uproxy works here; warnings: 1.",
    ]
    assert list(report(found[:1], width=80, paint=plain))[-1] == "uproxy works here."
    bad = Finding("epoll", Result.FAIL, "is missing", "uproxy runs on Linux only")
    assert list(report([*found, bad], width=80, paint=plain))[-1] == "uproxy cannot work here."
