"""Prints docs/metrics.md: python -m tests.http.metrics_document

Names, types, labels and meanings are those of a page of /metrics on which everything occurs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple

import msgspec
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tests.http.statuses import FULL
from tests.http.test_backend_metrics import A, B
from tests.http.test_load_balancer_metrics import STATUS
from tests.http.test_metrics import telemetry
from uproxy.cli.output.hints import drop_meaning
from uproxy.core.flows.counters import DropReason
from uproxy.core.report.backends import CountedBackends
from uproxy.core.report.client_addresses import Masquerade
from uproxy.core.report.flow_log import FlowLogCounts, Missing
from uproxy.core.report.readiness import ReasonKind
from uproxy.core.report.status import FrontendState
from uproxy.http.backend_metrics import backend_metrics
from uproxy.http.metrics import samples

_HEAD: Final = """\
# Metrics

`make documents` writes this page from the code.

A running uproxy has these metrics at `/metrics` on its metrics address
(`--metrics-bind-address`, 127.0.0.1:10249 unless it is set). [monitoring.md](monitoring.md) says
how Prometheus gets them, and has a dashboard and alerts.
"""

_MISSING: Final = (
    (
        "`kubeproxy_sync_proxy_rules_iptables_*`, `kubeproxy_sync_proxy_rules_nftables_*`",
        'There are no such rules. `uproxy_frontends{state="failed"}` counts what is not open.',
    ),
    (
        "`kubeproxy_iptables_ct_state_invalid_dropped_packets_total`",
        "Connections end in uproxy, so no rule drops their packets because of conntrack.",
    ),
    (
        "`kubeproxy_iptables_localhost_nodeports_accepted_packets_total`",
        "NodePorts on localhost are counted like all others.",
    ),
    ("`kubeproxy_conntrack_reconciler_*`", "Nothing depends on entries of conntrack."),
    ("`kubernetes_build_info`", "It is `uproxy_build_info`."),
    (
        "`kubernetes_feature_enabled`, `kubernetes_healthcheck*`",
        "There are no feature gates. `uproxy_ready` and `uproxy_healthy` say what the probes say.",
    ),
    ("`go_*`", "uproxy is written in Python."),
)
"""Metrics of kube-proxy, and why uproxy has none of that name."""


class _Section(NamedTuple):
    prefixes: tuple[str, ...]
    title: str
    text: str


_SECTIONS: Final = (
    _Section(
        ("uproxy_",),
        "Traffic of Services",
        "`namespace`, `service`, `port` (its name, which may be empty) and `protocol` name a port "
        "of a Service.",
    ),
    _Section(
        ("uproxy_per_backend_",),
        "Backends",
        "With `--metrics-per-backend` only. `backend` is ADDRESS:PORT; `pod`, `node` and `zone` "
        "are empty if they are not known.",
    ),
    _Section(
        ("uproxy_flow_log_",),
        "The flow log",
        "With `--flow-log` only ([flows.md](flows.md#the-flow-log)).",
    ),
    _Section(
        (
            "uproxy_build",
            "uproxy_frontends",
            "uproxy_healthy",
            "uproxy_masqueraded_service_ports",
            "uproxy_problems",
            "uproxy_ready",
            "uproxy_unusable",
        ),
        "The state of this node",
        "What `uproxy status` shows, in numbers.",
    ),
    _Section(
        ("uproxy_worker_",),
        "Workers",
        "Workers are the processes that move the bytes. `worker` is the number of one.",
    ),
    _Section(
        ("uproxy_load_balancer_",),
        "Addresses of load balancers",
        "Only if uproxy gives Services their addresses ([load-balancer.md](load-balancer.md)).",
    ),
    _Section(
        ("kubeproxy_",),
        "Syncs and probes",
        "A sync makes the listeners match the cluster; in kube-proxy it writes rules. `ip_family` "
        "is `IPv4` or `IPv6`.",
    ),
    _Section(
        ("rest_client_",),
        "Requests to the API server",
        "kube-proxy has them from client-go. The code of a request without an answer is `<error>`.",
    ),
    _Section(
        ("process_",),
        "The control process",
        "Every client library of Prometheus has these. Those of the workers are [above](#workers).",
    ),
)
"""Each metric is in the one with the longest prefix of its name."""

_UNITS: Final = {
    "timestamp_seconds": "Unix time in seconds",
    "start_time_seconds": "Unix time in seconds",
    "cpu_seconds": "seconds of CPU time",
    "seconds": "seconds",
    "bytes": "bytes",
    "datagrams": "datagrams",
    "flows": "flows",
    "addresses": "addresses",
    "fds": "file descriptors",
    "ready": "0 or 1",
    "healthy": "0 or 1",
    "allocating": "0 or 1",
    "addresses_free": "addresses",
    "addresses_in_use": "addresses",
    "workers": "workers",
    "": "count",
}
"""By the end of the name, without `_total`; the first that fits."""

_SHARED: Final = {
    "kubeproxy": "the same",
    "rest": "the same, from client-go",
    "process": "the same",
}
"""What kube-proxy has of that name, by the first word of the name; of the others it has none."""

LABEL_VALUES: Final[Mapping[str, tuple[str, type[StrEnum]]]] = {
    "uproxy_dropped_total": ("reason", DropReason),
    "uproxy_frontends": ("state", FrontendState),
    "uproxy_problems": ("kind", ReasonKind),
    "uproxy_masqueraded_service_ports": ("reason", Masquerade),
    "uproxy_flow_log_dropped_lines_total": ("reason", Missing),
}


class Exported(NamedTuple):
    """One metric, as it is on a page."""

    name: str
    """With "_total" if it is a counter; without "_bucket" and the like if it is a histogram."""
    type: str
    labels: tuple[str, ...]
    """Those that its samples have, and "le" of histograms not among them."""
    help: str


def exported(page: str) -> Mapping[str, Exported]:
    """The metrics on a page in Prometheus's text format, by name, those without samples too."""
    found = {}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = Exported(name, family.type, tuple(sorted(labels)), family.documentation)
    return found


def full_page() -> str:
    """A page on which everything occurs."""
    me = tuple(msgspec.structs.replace(each, pid=os.getpid()) for each in FULL.workers)
    status = msgspec.structs.replace(
        FULL, load_balancer=STATUS, workers=me, flow_log=FlowLogCounts()
    )
    families = [
        *samples(telemetry(), status, version="1.2.3"),
        *backend_metrics(CountedBackends([A, B])),
        *ProcessCollector(registry=None).collect(),
    ]
    return generate_latest(_Page(families)).decode()


class _Page(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def metrics_document() -> str:
    """What docs/metrics.md has to be."""
    found: dict[_Section, list[Exported]] = {each: [] for each in _SECTIONS}
    for metric in exported(full_page()).values():
        found[max(_SECTIONS, key=partial(_fit, metric.name))].append(metric)
    sections = (_section(each, metrics) for each, metrics in found.items() if metrics)
    lines = (line for each in (*sections, _values(), _drops(), _missing()) for line in each)
    return "\n".join([_HEAD, *lines]).rstrip() + "\n"


def _fit(name: str, section: _Section) -> int:
    """How long a prefix of the name the section has."""
    return max(len(each) if name.startswith(each) else 0 for each in section.prefixes)


def _section(section: _Section, metrics: Iterable[Exported]) -> Iterator[str]:
    yield from _title(section.title, section.text)
    rows = (
        (
            f"`{each.name}`",
            each.type,
            ", ".join(f"`{label}`" for label in each.labels),
            _unit(each.name),
            each.help,
            _SHARED.get(each.name.partition("_")[0], ""),
        )
        for each in sorted(metrics)
    )
    yield from _table(("name", "type", "labels", "unit", "meaning", "in kube-proxy"), rows)


def _values() -> Iterator[str]:
    yield from _title("Values of labels", "")
    rows = (
        (f"`{label}`", f"`{name}`", ", ".join(f"`{each.value}`" for each in values))
        for name, (label, values) in LABEL_VALUES.items()
    )
    yield from _table(("label", "of", "values"), rows)


def _drops() -> Iterator[str]:
    yield from _title("Why flows and datagrams are dropped", "")
    yield from _table(
        ("`reason` of `uproxy_dropped_total`", "meaning"),
        ((f"`{each.value}`", drop_meaning(each.value)) for each in DropReason),
    )


def _missing() -> Iterator[str]:
    yield from _title("What kube-proxy has and uproxy has not", "")
    yield from _table(("metric of kube-proxy", "why not"), _MISSING)


def _title(title: str, text: str) -> Iterator[str]:
    yield f"## {title}\n"
    if text:
        yield f"{text}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for each in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(each)} |"
    yield ""


def _unit(name: str) -> str:
    stem = name.removesuffix("_total")
    return next((unit for end, unit in _UNITS.items() if stem.endswith(end)), "")


if __name__ == "__main__":
    sys.stdout.write(metrics_document())
