"""What shows clients' addresses to pods, when it cannot be made for a moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, cast

import pytest

from tests.faults.clock import Clock, VirtualLoop
from tests.faults.injection import FaultInjector
from tests.faults.kernel import Kernel
from tests.faults.machine import Surroundings, Transparency, bridge_calls
from uproxy.control.client_ip_preservation import ClientAddressCalls, ClientIPPreservation
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.protocols import TCP
from uproxy.core.route import Backend, ServicePortName
from uproxy.core.routing.table import RoutingTable
from uproxy.host.pod_networks import PodNetworks
from uproxy.net.messages import Astray, Report, Witness

WEB = ObjectName("default", "web")


def wanted_by(*services: ObjectName) -> RoutingTable:
    return RoutingTable(preserves_outside=frozenset(services))


Told = list[tuple[str, ...]]
"""Networks of the pods that can be shown, each time that something has changed."""


def run(main: Callable[[FaultInjector, ClientIPPreservation, Told], Awaitable[None]]) -> None:
    clock, faults = Clock(), FaultInjector(random.Random(0))
    kernel = Kernel(clock, faults, lambda line: None)
    made = Transparency(kernel)
    calls = ClientAddressCalls(
        new_rules=lambda: cast("Any", made),
        remove_rules=made.remove,
        remove_leftovers=made.remove,
        take_lock=Surroundings(kernel, faults).take_lock,
        bridge=bridge_calls(kernel),
    )

    async def beside() -> None:
        told: Told = []
        shown = ClientIPPreservation(
            "auto",
            changed=lambda: told.append(shown.shown.pods),
            with_flows=frozenset,
            calls=calls,
        )
        async with asyncio.TaskGroup() as tasks, shown:
            running = tasks.create_task(TaskSupervisor().run("what shows addresses", shown.run))
            await main(faults, shown, told)
            running.cancel()

    with ExitStack() as stack:
        stack.enter_context(clock.instead_of_time())
        loop = VirtualLoop(clock, random.Random(0), kernel.readiness)
        stack.enter_context(asyncio.Runner(loop_factory=lambda: loop)).run(beside())


@pytest.mark.parametrize("what", ["lock", "transparent", "bug"])
def test_a_lack_of_something_does_not_last(what: str) -> None:
    async def main(faults: FaultInjector, shown: ClientIPPreservation, told: Told) -> None:
        faults.start([what], 1.0)
        await shown.prepare(wanted_by(WEB))
        await asyncio.sleep(60)
        assert shown.shown.reason
        assert not shown.shown.families
        faults.stop()
        await asyncio.sleep(30)
        assert shown.shown.families == ("IPv4", "IPv6")
        assert not shown.shown.reason

    run(main)


def test_a_report_from_before_a_repair_is_lifted_soon() -> None:
    """It arrives after the repair, and would hide pods for an hour."""

    async def main(faults: FaultInjector, shown: ClientIPPreservation, told: Told) -> None:
        astray = Astray(ServicePortName("default", "web", "", TCP), "IPv4")
        report = Report([], 0, astray=[astray])
        await shown.prepare(wanted_by(WEB))
        faults.start(["transparent"], 1.0)
        await asyncio.sleep(15)
        faults.stop()
        while not shown.shown.families:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        shown.reported(report, lambda port: True)
        assert shown.shown.astray
        await asyncio.sleep(30)
        assert not shown.shown.astray
        shown.reported(report, lambda port: True)
        await asyncio.sleep(30)
        assert shown.shown.astray, "that one has nothing to do with the repair"

    run(main)


@pytest.mark.parametrize(
    ("appeared", "lifted"),
    [
        pytest.param(("10.0.0.7/32", "2001:db8::7/128"), False, id="pods on links of their own"),
        pytest.param(("10.0.1.0/24",), True, id="a network"),
        pytest.param(("2001:db8::/32",), True, id="a network of IPv6"),
    ],
)
def test_astray_ports_are_tried_again_in_another_network(
    appeared: tuple[str, ...], *, lifted: bool
) -> None:
    async def main(faults: FaultInjector, shown: ClientIPPreservation, told: Told) -> None:
        pods = ("10.0.0.6/32", "2001:db8::6/128")
        shown.set_networks(PodNetworks(pods=pods))
        await shown.prepare(wanted_by(WEB))
        port = ServicePortName("default", "web", "", TCP)
        shown.reported(Report([], 0, astray=[Astray(port, "IPv4 here")]), lambda port: True)
        assert shown.shown.astray
        shown.set_networks(PodNetworks(pods=(*pods, *appeared)))
        await asyncio.sleep(30)
        assert told[-1] == (*pods, *appeared)
        assert bool(shown.shown.astray) is not lifted

    run(main)


def test_services_of_the_past_are_forgotten() -> None:
    async def main(faults: FaultInjector, shown: ClientIPPreservation, told: Told) -> None:
        for number in range(100):
            await shown.prepare(wanted_by(ObjectName("default", f"s{number}")))
        await asyncio.sleep(30)
        assert shown._may_have_flows == {ObjectName("default", "s99")}

    run(main)


@pytest.mark.parametrize("what", ["transparent", "bug"])
def test_what_cannot_be_removed_stops_nobody(what: str) -> None:
    async def main(faults: FaultInjector, shown: ClientIPPreservation, told: Told) -> None:
        await shown.prepare(wanted_by(WEB))
        await asyncio.sleep(1)
        faults.start([what], 1.0)
        await shown.prepare(wanted_by())
        await asyncio.sleep(30)
        faults.stop()
        await shown.prepare(wanted_by(WEB))
        await asyncio.sleep(30)
        assert shown.shown.families == ("IPv4", "IPv6")

    run(main)


def test_workers_learn_which_pods_live_here_no_longer() -> None:
    async def main(faults: FaultInjector, shown: ClientIPPreservation, told: Told) -> None:
        both = PodNetworks(pods=("10.0.0.0/24", "10.0.1.0/24"))
        shown.set_networks(both)
        await shown.prepare(wanted_by(WEB))
        assert told[-1] == both.pods
        shown.set_networks(PodNetworks(pods=both.pods[:1]))
        assert told[-1] == both.pods[:1]
        shown.set_networks(PodNetworks())
        assert told[-1] == ()

    run(main)


def test_workers_share_what_proves_that_replies_come_back() -> None:
    owner = ServicePortName("default", "web", "", "TCP")
    witness = Witness("IPv4", owner, Backend("10.0.9.1", 80), "10.0.0.2")

    async def main(faults: FaultInjector, shown: ClientIPPreservation, told: Told) -> None:
        shown.set_networks(PodNetworks(pods=("10.0.0.0/24", "10.0.1.0/24")))
        await shown.prepare(wanted_by(WEB))
        report = Report([], 0, witnesses=[witness])
        shown.reported(report, lambda port: False)
        assert list(shown.witnesses) == []
        before = len(told)
        shown.reported(report, lambda port: port == owner)
        assert list(shown.witnesses) == [witness]
        shown.reported(report, lambda port: True)
        assert len(told) == before + 1
        # A pod less does not matter to it; that no address is shown any more does.
        shown.set_networks(PodNetworks(pods=("10.0.0.0/24",)))
        assert list(shown.witnesses) == [witness]
        await shown.prepare(wanted_by())
        await asyncio.sleep(30)
        assert shown.shown.families == ()
        assert list(shown.witnesses) == []

    run(main)
