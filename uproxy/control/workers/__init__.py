"""Worker processes, from the control side: start, feed, watch, replace, end."""

from uproxy.control.workers.process import Process, Started, start_worker
from uproxy.control.workers.supervision import Periods, Workers

__all__ = ["Periods", "Process", "Started", "Workers", "start_worker"]
