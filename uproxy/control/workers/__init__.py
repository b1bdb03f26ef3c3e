"""Worker processes, as the control process starts, instructs, supervises and replaces them."""

from uproxy.control.workers.process import Process, Started, start_worker
from uproxy.control.workers.supervision import Periods, Workers

__all__ = ["Periods", "Process", "Started", "Workers", "start_worker"]
