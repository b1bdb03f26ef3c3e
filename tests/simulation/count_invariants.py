"""What must hold for what is counted of backends."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, ServicePortName

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class BackendSums:
    """What a worker has reported of its backends, added up."""

    def __init__(self) -> None:
        self.ports: dict[ServicePortName, Counter[str]] = {}
        self._active: dict[tuple[ServicePortName, Backend], int] = {}

    def add(self, name: ServicePortName, backend: Backend, counts: BackendCounts) -> None:
        """A report has come."""
        sums = self.ports.setdefault(name, Counter())
        sums["flows"] += counts.flows
        sums["client_bytes"] += counts.client_bytes
        sums["backend_bytes"] += counts.backend_bytes
        sums["retries"] += counts.retries
        sums["failures"] += sum(counts.failures.values())
        sums["connected"] += sum(counts.connect_times)
        self._active[name, backend] = counts.active

    @property
    def active(self) -> int:
        return sum(self._active.values())


def violations(simulation: Simulation) -> list[str]:
    """The counts of the backends of a port add up to its own. Called once, when all has ended."""
    sums, found = simulation.control.channel.backends, []
    for name, port in simulation.context.ports.all.items():
        for backend in list(port.balancer.tallies):
            counts = port.balancer.take_counts(backend, 0.0)
            if counts is not None:
                sums.add(name, backend, counts)
    if sums.active:
        found.append(f"{sums.active} flows of backends are counted as alive")
    for name in sums.ports:
        found += _of_port(simulation, name, _total(simulation, name), sums.ports[name])
    return found


def _of_port(
    simulation: Simulation, name: ServicePortName, total: Counters, sums: Counter[str]
) -> list[str]:
    expected = {"retries": total.retries, "failures": total.dial_failures}
    if name.protocol == "TCP":
        expected |= {"flows": total.dials, "connected": total.dials}
    for direction in ("client_bytes", "backend_bytes"):
        # A datagram that was reported, and refused later, is taken back from the port only.
        if name.protocol == "TCP" or not simulation.machine.network.refused:
            expected[direction] = getattr(total, direction)
    return [
        f"backends of {name} have {sums[what]} {what} of {count}"
        for what, count in expected.items()
        if sums[what] != count
    ]


def _total(simulation: Simulation, name: ServicePortName) -> Counters:
    """Of what was reported, and what would be next."""
    total = Counters(dropped={})
    total.add(simulation.control.channel.sums.get(name, total))
    port = simulation.context.ports.all.get(name)
    if port is not None:
        told = simulation.worker._count_reports._reported.get(name, Counters())
        for field in ("client_bytes", "backend_bytes", "retries", "dial_failures", "dials"):
            more = getattr(port.counters, field) - getattr(told, field)
            setattr(total, field, getattr(total, field) + more)
    return total
