"""What becomes of the records of flows that have ended, which workers send."""

from __future__ import annotations

import time
from collections.abc import Callable

from uproxy.control.flow_log import FlowLog
from uproxy.control.recent_flows import AskedWorkers, RecentFlows
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.pod_history import NOWHERE, Place, PodHistory
from uproxy.core.cluster.state import ClusterState
from uproxy.core.flows.flow_record import FlowRecord
from uproxy.core.report.flow_format import Ended, FlowFilter, FlowsView
from uproxy.net.messages import Records


class EndedFlows:
    """They are shown to whoever asks for them, and go to the flow log."""

    def __init__(
        self, state: ClusterState, workers: Callable[[], AskedWorkers], log_path: str = ""
    ) -> None:
        """`log_path`: "-" for standard output; "": there is no flow log."""
        self.log = FlowLog(log_path) if log_path else None
        self._pods = PodHistory(state, time.time)
        self._recent = RecentFlows(workers, self._place)

    async def find(self, wanted: FlowFilter) -> FlowsView:
        """The flows that are wanted, as far as workers answer."""
        return await self._recent.find(wanted)

    def recorded(self, worker: int, records: Records) -> None:
        """A worker has sent records."""
        if records.request:
            self._recent.received(worker, records)
        elif self.log is not None:
            lines = [(Ended(each, worker), self._place(each)) for each in records.records]
            self.log.put(lines, records.left_out)

    def reopen_log(self) -> None:
        """The file of the flow log may have been moved."""
        if self.log is not None:
            self.log.reopen()

    def _place(self, record: FlowRecord) -> Place:
        if record.backend is None:
            return NOWHERE
        service = ObjectName(record.owner.namespace, record.owner.name)
        return self._pods.at(service, record.backend, record.start)
