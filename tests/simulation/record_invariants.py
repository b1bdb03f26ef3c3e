"""What must hold for the records of flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.peers import Peer
from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.flows.flow_record import KEPT, Ender, FlowRecord, Phase
from uproxy.net.messages import RecordsWanted

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

FIRST_PORT = 40_000
"""Of the first client; the others have those that follow."""
_REFUSED = (DropReason.NO_BACKEND.value, DropReason.SOURCE_REFUSED.value)


def violations(simulation: Simulation, totals: dict[str, Counters]) -> list[str]:
    """`totals`: the sums of all counters, by protocol."""
    kept = simulation.context.records
    wanted = RecordsWanted(request=1, after=0, most=KEPT)
    records, found = kept.records(kept.find(wanted).numbers), []
    if [each.number for each in records] != list(range(1, len(records) + 1)):
        found.append("records are not numbered one by one")
    for protocol, total in totals.items():
        own = [each for each in records if each.owner.protocol == protocol]
        found += _miscounted(own, total, exact=protocol == "TCP")
        # What the kernel refuses late is taken from the counters of a UDP flow that has ended.
        late = simulation.machine.network.refused or simulation.world.happened
        if protocol == "TCP" or not late:
            found += _missing_bytes(own, total)
    for each in records:
        if each.owner.protocol == "TCP":
            peer = simulation.clients[each.client_port - FIRST_PORT]
            found += [
                f"{peer.name} is recorded as {each}, which {wrong}" for wrong in _of(each, peer)
            ]
    return found


def _miscounted(records: list[FlowRecord], total: Counters, *, exact: bool) -> list[str]:
    """Each flow has one record. Those of UDP flows that got no socket were not counted."""
    flows = [each for each in records if each.reason not in _REFUSED]
    if len(flows) < total.flows or (exact and len(flows) > total.flows):
        return [f"{len(flows)} records of {total.flows} flows"]
    return []


def _missing_bytes(records: list[FlowRecord], total: Counters) -> list[str]:
    recorded = (
        sum(each.client_bytes for each in records),
        sum(each.backend_bytes for each in records),
    )
    counted = total.client_bytes, total.backend_bytes
    return [f"{recorded} bytes are recorded of {counted}"] if recorded != counted else []


def _of(record: FlowRecord, client: Peer) -> list[str]:
    """Only an end that has done something is said to have ended a flow."""
    ender, phase = record.code[0], record.code[1]
    backend, found = client.pair, []
    if (phase == Phase.CONNECTING) != (backend is None):
        found.append("has another phase")
    if ender == Ender.CLIENT and client.script.gentle:
        found.append("blames the client")
    if ender == Ender.BACKEND and backend is not None and backend.script.gentle:
        found.append("blames the backend")
    if ender == Ender.BOTH and (client.error or (backend is not None and backend.error)):
        found.append("says that both ends have closed")
    if record.duration < 0 or not 0 <= record.dial_time <= record.duration + 1e-6:
        found.append("takes an odd time")
    return found
