"""The metrics of each worker process. Those named process_* are of the control process, which moves
no bytes."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from uproxy.core.flows.capacity import share_of_flows
from uproxy.core.report.status import Status
from uproxy.host.process_usage import Usage, process_usage


def worker_metrics(status: Status) -> Iterator[Metric]:
    """The families."""
    yield CounterMetricFamily(
        "uproxy_worker_restarts_total",
        "Worker processes that ended unexpectedly and were replaced.",
        value=sum(worker.restarts for worker in status.workers),
    )
    active = _gauge("active_flows", "Flows that a worker process is serving now.")
    most = _gauge(
        "max_flows",
        "Flows that a worker process may have: its share of --max-flows, or fewer if its limit of "
        "open files is too low for these.",
    )
    for worker in status.workers:
        label, number = [str(worker.index)], len(status.workers)
        active.add_metric(label, worker.active_flows)
        limited = worker.most_flows
        share = share_of_flows(status.max_flows, number, worker.index)
        most.add_metric(label, limited if isinstance(limited, int) else share)
    yield from (active, most)
    found = ((worker.index, process_usage(worker.pid)) for worker in status.workers)
    yield from _used({index: used for index, used in found if used is not None})


def _used(workers: dict[int, Usage]) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        "uproxy_worker_cpu_seconds_total",
        "User and system CPU time that a worker process has used.",
        labels=["worker"],
    )
    memory = _gauge("resident_memory_bytes", "Resident memory of a worker process.")
    files = _gauge(
        "open_fds",
        "Open file descriptors of a worker process. Before Linux 6.2 it is missing.",
    )
    most_files = _gauge("max_fds", "Most file descriptors that a worker process may have open.")
    for index, used in workers.items():
        label = [str(index)]
        cpu.add_metric(label, used.cpu_seconds)
        memory.add_metric(label, used.resident_bytes)
        if used.open_files is not None:
            files.add_metric(label, used.open_files)
        if used.most_open_files is not None:
            most_files.add_metric(label, used.most_open_files)
    yield from (cpu, memory, files, most_files)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"uproxy_worker_{name}", text, labels=["worker"])
