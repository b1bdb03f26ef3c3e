"""For each alert, samples at which it has to fire, and similar ones at which it must not."""

from __future__ import annotations

from typing import Final, NamedTuple

HOUR: Final = 60
"""Samples are taken each minute; "5x60" is the value 5 for an hour."""

_NODE: Final = 'job="uproxy", instance="n1"'
_PORT: Final = f'{_NODE}, namespace="default", service="web", port="http", protocol="TCP"'
_PROGRAMMING: Final = "kubeproxy_network_programming_duration_seconds_bucket"
_SYNCED: Final = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
_QUEUED: Final = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds"
_LB: Final = "uproxy_load_balancer_"

Series = dict[str, str]
"""Values in promtool's notation, by series."""

_BUILD: Final[Series] = {f'uproxy_build_info{{{_NODE}, version="1"}}': "1x60"}
_KUBE_PROXY: Final = 'job="kube-proxy", instance="n1:10249"'


class Case(NamedTuple):
    fires: Series
    quiet: Series


def _node(metric: str, bad: str, good: str, labels: str = "") -> Case:
    """One metric of a node."""
    series = f"{metric}{{{_NODE}{', ' if labels else ''}{labels}}}"
    return Case({series: bad}, {series: good})


def _dropped(reason: str, grows: str = "0+60x60") -> Case:
    other = "idle" if reason != "idle" else "loop"
    return Case(
        {f'uproxy_dropped_total{{{_PORT}, reason="{reason}"}}': grows},
        {
            f'uproxy_dropped_total{{{_PORT}, reason="{reason}"}}': "7x60",
            f'uproxy_dropped_total{{{_PORT}, reason="{other}"}}': "0+60x60",
        },
    )


def _programming(late: str, node: str = _NODE) -> Series:
    return {
        f'{_PROGRAMMING}{{{node}, ip_family="IPv4", le="1.0"}}': "0+50x60",
        f'{_PROGRAMMING}{{{node}, ip_family="IPv4", le="60.0"}}': late,
        f'{_PROGRAMMING}{{{node}, ip_family="IPv4", le="+Inf"}}': late,
    }


def _synced(last: str, queued: str, node: str = _NODE) -> Series:
    return {
        f'{_SYNCED}{{{node}, ip_family="IPv4"}}': last,
        f'{_QUEUED}{{{node}, ip_family="IPv4"}}': queued,
    }


def _used(of: str, used: str, most: str, worker: str = ', worker="0"') -> Series:
    return {
        f"{of.format('active_flows', 'open_fds')}{{{_NODE}{worker}}}": used,
        f"{of.format('max_flows', 'max_fds')}{{{_NODE}{worker}}}": most,
    }


def _pool(free: str, used: str) -> Series:
    labels = f'{_NODE}, pool="default", family="IPv4"'
    return {
        f"{_LB}pool_addresses_free{{{labels}}}": free,
        f"{_LB}pool_addresses_in_use{{{labels}}}": used,
    }


def _fails(failures: str, flows: str) -> Series:
    return {
        f"uproxy_dial_failures_total{{{_PORT}}}": failures,
        f"uproxy_flows_total{{{_PORT}}}": flows,
    }


_OTHER_NODE: Final = f'{_LB}allocating{{job="uproxy", instance="n2"}}'
_THIS_NODE: Final = f"{_LB}allocating{{{_NODE}}}"
_POD: Final = f'{_PORT}, pod="web-1", backend="10.0.0.1:80", errno="ETIMEDOUT"'

CASES: Final[dict[str, Case]] = {
    "UproxyDown": _node("up", "0x60", "1x60"),
    "UproxyMissing": Case({}, _BUILD),
    "UproxyNotReady": _node("uproxy_ready", "0x60", "1x60"),
    "UproxyNotHealthy": _node("uproxy_healthy", "0x60", "1x60"),
    "UproxyClusterNotWatched": _node(
        "uproxy_problems", "1x60", "0x60", 'kind="last-known state served"'
    ),
    # Samples are at 0, 60, 120 ... seconds. Nothing waits in an hour without changes.
    # kube-proxy has these metrics, too; its alerts are not ours.
    "UproxySyncsHang": Case(
        {**_BUILD, **_synced("100x60", "101x60")},
        {**_BUILD, **_synced("100x60", "99x60"), **_synced("100x60", "101x60", _KUBE_PROXY)},
    ),
    "UproxyChangesServedLate": Case(
        {**_BUILD, **_programming("0+60x60")},
        {**_BUILD, **_programming("0+50x60"), **_programming("0+60x60", _KUBE_PROXY)},
    ),
    "UproxyProblem": Case(
        {f'uproxy_problems{{{_NODE}, kind="unexpected error"}}': "1x60"},
        {f'uproxy_problems{{{_NODE}, kind="draining"}}': "1x60"},
    ),
    "UproxyFlowLogIncomplete": _node(
        "uproxy_flow_log_dropped_lines_total", "0+1x60", "9x60", 'reason="too_many"'
    ),
    "UproxyFrontendsFailed": _node("uproxy_frontends", "2x60", "0x60", 'state="failed"'),
    "UproxyFrontendsInConflict": _node("uproxy_frontends", "2x60", "0x60", 'state="conflict"'),
    "UproxyUnusableObjects": _node("uproxy_unusable_objects", "1x60", "0x60"),
    "UproxyWorkersRestarting": _node("uproxy_worker_restarts_total", "0x25 1x35", "3x60"),
    "UproxyFlowsNearLimit": Case(
        _used("uproxy_worker_{0}", "90x60", "100x60"), _used("uproxy_worker_{0}", "80x60", "100x60")
    ),
    "UproxyDescriptorsNearLimit": Case(
        {
            **_used("process_{1}", "95x60", "100x60", ""),
            f'uproxy_build_info{{{_NODE}, version="1"}}': "1x60",
        },
        # The same of another program, and a worker with room.
        {
            **_used("process_{1}", "95x60", "100x60", ""),
            **_used("uproxy_worker_{1}", "80x60", "100x60"),
        },
    ),
    "UproxyClientAddressesHidden": _node(
        "uproxy_masqueraded_service_ports", "1x60", "0x60", 'reason="astray"'
    ),
    "UproxyClientsFail": _dropped("dial_failed"),
    "UproxyBackendsFail": Case(_fails("0+10x60", "0+100x60"), _fails("0+1x60", "0+100x60")),
    "UproxyPodFails": Case(
        {f"uproxy_per_backend_dial_failures_total{{{_POD}}}": "0+1x60"},
        {f"uproxy_per_backend_dial_failures_total{{{_POD}}}": "48x60"},
    ),
    "UproxyServicesDegraded": _node("uproxy_frontends", "1x60", "0x60", 'state="degraded"'),
    "UproxyNoBackend": _dropped("no_backend"),
    "UproxyShortOfResources": _dropped("capacity"),
    "UproxyDatagramsLost": _dropped("buffer_full", "0+600x60"),
    "UproxyLoop": _dropped("loop"),
    "UproxyAddressNotAnnounced": _node(f"{_LB}unannounced_addresses", "1x60", "0x60"),
    "UproxyAddressConflict": _node(f"{_LB}contradicted_addresses", "1x60", "0x60"),
    "UproxyAddressesFlap": _node(f"{_LB}transitions_total", "0+2x60", "0+1x60"),
    "UproxyServicesWaitForAddress": _node(f"{_LB}services", "1x60", "0x60", 'state="pending"'),
    # A pool that is drained has no free address, and is not full.
    "UproxyPoolNearlyFull": Case(_pool("1x60", "19x60"), _pool("0x60", "0x60")),
    "UproxyNoAllocator": Case(
        {_THIS_NODE: "0x60", _OTHER_NODE: "0x60"}, {_THIS_NODE: "0x60", _OTHER_NODE: "1x60"}
    ),
    "UproxyTwoAllocators": Case(
        {_THIS_NODE: "1x60", _OTHER_NODE: "1x60"}, {_THIS_NODE: "0x60", _OTHER_NODE: "1x60"}
    ),
    "UproxyLeaseNotRenewed": _node(f"{_LB}lease_renewal_failures_total", "0+1x60", "0x29 1x31"),
}
