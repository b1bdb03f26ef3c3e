"""The routing table of manifests, made as `uproxy run` makes it, without anything being served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from uproxy.config.settings import Config
from uproxy.control.load_balancer.assembly import supply_of
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.in_memory import InMemoryAllocation
from uproxy.control.machine import Machine, MachineCalls, routing_options
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.status import ObjectStatus
from uproxy.core.routing.build import build
from uproxy.core.routing.table import RoutingTable
from uproxy.sources.sink import Sink

_SOURCE: Final = "manifests"


class DryRun(NamedTuple):
    """What would be served."""

    state: ClusterState
    table: RoutingTable


async def dry_run(
    config: Config, objects: Sequence[Object], calls: MachineCalls | None = None
) -> DryRun:
    """What this node would serve of these objects. `config` has manifests."""
    machine = Machine(calls=calls) if calls is not None else Machine()
    await machine.read_all()
    state = ClusterState((_SOURCE,), node_name=config.node_name)
    _sink(config, state, machine).replace(_SOURCE, objects)
    options = routing_options(config, state.node, machine, {})
    return DryRun(state, build(state, options, RoutingTable(), ()))


def _sink(config: Config, state: ClusterState, machine: Machine) -> Sink:
    """Where the objects are delivered: directly, or by way of what gives them addresses."""
    if config.lb_mode == Assigning.NEVER:
        return _StateSink(state)
    supply = supply_of(config, state, Catalog(config.lb_pools), machine.occupied)
    memory = InMemoryAllocation(state, supply)
    state.observe(memory.object_changed)
    return memory.sink(_StateSink(state))


class _StateSink:
    """A Sink that applies objects to a state."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        self._state.replace(source, objects)

    def apply(self, source: str, obj: Object) -> None:
        self._state.apply(source, obj)

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        self._state.remove(source, kind, key)

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        """Ignore them: whoever has read the objects already knows which of them are unusable."""
