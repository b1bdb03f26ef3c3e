"""What nodes say of addresses that one of them announces."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.lb_segment import Machine, Segment, segment, vip
from tests.netns.node import HEALTH, METRICS, wait_for
from uproxy.host.frames import announcements

pytestmark = kit.needs()

WEB = vip(0)
FRONTENDS = (f"{WEB[0]}:80/TCP", f"[{WEB[1]}]:80/TCP")


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segment]:
    """Two nodes, and a Service "web" whose addresses one of them announces, or each one of them."""
    with segment(tmp_path_factory.mktemp("segment"), 2) as made:
        made.start()
        made.serve("web", WEB)
        yield made


def sides(lan: Segment, address: str) -> tuple[Machine, Machine]:
    """The node that announces an address, and the other one."""
    holder = lan.holder(address)
    return lan[holder], next(lan[name] for name in ("n1", "n2") if name != holder)


def balancer(machine: Machine) -> dict[str, Any]:
    shown: dict[str, Any] = machine.running.status()["loadBalancer"]
    return shown


def address_of(machine: Machine, address: str) -> dict[str, Any]:
    shown = balancer(machine)["addresses"]
    return next((each for each in shown if each["address"] == address), {})


def is_announced_by(node: str, machine: Machine, address: str) -> bool:
    """Whether a machine says so."""
    return address_of(machine, address).get("node") == node


def metric(machine: Machine, name: str) -> float:
    text = machine.running.get(METRICS, "/metrics")[1]
    found = re.search(rf"^uproxy_load_balancer_{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found is not None else -1


def printed(machine: Machine, *words: str) -> str:
    command = machine.space.command(sys.executable, "-m", "uproxy.cli", *words)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_one_serves_and_the_other_says_which(lan: Segment, family: int) -> None:
    here, there = sides(lan, WEB[family])
    frontend = FRONTENDS[family]
    for machine in (here, there):
        wait_for("status", partial(is_announced_by, here.name, machine, WEB[family]))
        assert machine.running.get(HEALTH, "/readyz")[0] == 200
    assert here.running.frontend(frontend)["state"] == "serving"
    found = there.running.frontend(frontend)
    assert (found["state"], found["reason"]) == ("elsewhere", f"node {here.name} announces it")
    assert address_of(here, WEB[family])["interface"] == "eth0"
    assert address_of(here, WEB[family])["since"] is not None


def test_the_commands_say_it(lan: Segment) -> None:
    here, there = sides(lan, WEB[0])
    text = printed(here, "explain", "web")
    assert (
        f"{WEB[0]} from pool default; {here.name} (this node) has announced it on eth0 since "
        in text
    )
    assert "Fail-over  if a node dies" in text
    text = printed(there, "explain", "web")
    assert f"Clients of {WEB[0]}" in text
    rows = [line.split() for line in printed(there, "status").splitlines()]
    assert any(row[:3] == [WEB[0], here.name, "since"] for row in rows)


def test_the_metrics_count_it(lan: Segment) -> None:
    machines = [lan["n1"], lan["n2"]]
    for address in WEB:
        lan.holder(address)
    assert sum(metric(each, "announced_addresses") for each in machines) == 2
    assert sum(metric(each, "allocating") for each in machines) == 1
    here, _ = sides(lan, WEB[0])
    assert metric(here, "transitions_total") >= 1
    wait_for("frames", lambda: metric(here, "announcements_total") >= 2)
    assert metric(here, "lease_renewal_failures_total") == 0


def test_the_doctor_finds_nothing_in_the_way(lan: Segment) -> None:
    here, _ = sides(lan, WEB[0])
    text = printed(here, "doctor")
    for line in ("announcing ", "pools and subnets ", "ARP ", "DHCP "):
        [found] = [each for each in text.splitlines() if each.startswith(line)]
        assert "  ok  " in found


def test_another_machine_with_the_address_is_noticed(lan: Segment) -> None:
    here, _ = sides(lan, WEB[0])
    mac = lan.client.space.run("cat", "/sys/class/net/eth0/address").strip()
    with lan.client.space.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))

        def noticed() -> bool:
            """It goes on for 5 s, since a node that was cut off may say so for a moment."""
            for frame in announcements(WEB[0], mac, ""):
                sock.send(frame)
            return bool(address_of(here, WEB[0])["conflict"] == mac)

        wait_for("contradiction", noticed)
    assert metric(here, "contradictions_total") > 0
    assert metric(here, "contradicted_addresses") == 1
    assert f"{mac} answers for it as well" in printed(here, "status")
    doctor = printed(here, "doctor")
    assert f"{WEB[0]} is also answered for by {mac}" in doctor
    lan.holder(WEB[0])


def test_a_fail_over_is_no_change_of_the_machine(lan: Segment) -> None:
    """An address that comes is that of a Service: no route is derived again, no NodePort opens."""
    here, there = sides(lan, WEB[0])
    changed = there.running.log.count("addresses of this machine have changed")
    before = metric(there, "transitions_total")
    here.stop()
    lan.holder(WEB[0], other_than=here.name)
    wait_for("state", lambda: there.running.frontend(FRONTENDS[0])["state"] == "serving")
    wait_for("count", lambda: metric(there, "transitions_total") > before)
    assert there.running.log.count("addresses of this machine have changed") == changed
    here.start()
