"""Settings as the configuration file would say them: `file` read backwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uproxy.config import load_balancer
from uproxy.config.fields import FIELDS, KUBE_PROXY, UPROXY
from uproxy.config.settings import Address, Config
from uproxy.config.syntax import format_duration
from uproxy.text.document import join_parts


class Documents(NamedTuple):
    """The two documents of a file."""

    kube_proxy: Mapping[str, Any]
    uproxy: Mapping[str, Any]


def as_file(config: Config) -> Documents:
    """All settings under the names of the file's fields, with absolute paths."""
    return Documents(_kube_proxy(config), _uproxy(config))


def origins(config: Config) -> Mapping[str, str]:
    """For each field that is an option: the flag, the variable, or the line of the file that sets
    it; or "default"."""
    fields = map(join_parts, FIELDS.values())
    return {each: config.origins.get(each, "default") for each in fields}


def _kube_proxy(config: Config) -> Mapping[str, Any]:
    return {
        **KUBE_PROXY.head,
        "hostnameOverride": config.node_name,
        "clientConnection": {"kubeconfig": _path(config.kubeconfig)},
        "nodePortAddresses": list(config.nodeport_addresses),
        "clusterCIDR": ",".join(config.cluster_cidr),
        "healthzBindAddress": _address(config.healthz_address),
        "metricsBindAddress": _address(config.metrics_address),
        "bindAddressHardFail": config.bind_address_hard_fail,
        "logging": {"format": config.log_format, "verbosity": config.verbosity},
    }


def _uproxy(config: Config) -> Mapping[str, Any]:
    return {
        **UPROXY.head,
        "manifests": [_path(each) for each in config.manifests],
        "context": config.context,
        "apiServerAddresses": list(config.apiserver_address),
        "kubeletKubeconfig": _path(config.kubelet_kubeconfig),
        "serviceProxyName": config.service_proxy_name,
        "tlsRelaxedX509": config.tls_relaxed_x509,
        "externalIPCIDRs": list(config.external_ip_cidrs),
        "claimAddresses": config.claim_addresses,
        "preserveClientIP": config.preserve_client_ip,
        "ioUring": config.io_uring,
        "busyPoll": config.busy_poll,
        "strictSourceRanges": config.strict_source_ranges,
        "lb": config.lb_mode,
        "lbPools": load_balancer.written_pools(config),
        "lbReserved": load_balancer.written_reservations(config),
        "lbDrained": load_balancer.written_drained(config),
        "lbIPMode": config.lb_ip_mode,
        "announce": config.announce,
        "announceRepeat": format_duration(config.announce_repeat),
        "leaseNamespace": config.lease_namespace,
        "metallbNamespace": config.metallb_namespace,
        "serveHealthz": config.healthz_address is not None,
        "serveMetrics": config.metrics_address is not None,
        "metricsAllowedHosts": list(config.metrics_allowed_hosts),
        "metricsPerBackend": config.metrics_per_backend,
        "workers": config.workers,
        "balancer": config.balancer.value,
        "maxFlows": config.max_flows,
        "udpTimeout": format_duration(config.udp_timeout),
        "tcpIdleTimeout": format_duration(config.tcp_idle_timeout),
        "halfCloseTimeout": format_duration(config.half_close_timeout),
        "drainTimeout": format_duration(config.drain_timeout),
        "minSyncPeriod": format_duration(config.min_sync_period),
        "syncPeriod": format_duration(config.sync_period),
        "stateDir": _path(config.state_dir),
        "flowLog": _log_path(config.flow_log),
        "flowLogEvery": config.flow_log_every,
    }


def _path(path: Path | None) -> str:
    return str(path.absolute()) if path is not None else ""


def _log_path(path: str) -> str:
    return str(Path(path).absolute()) if path not in ("", "-") else path


def _address(address: Address | None) -> str:
    if address is None:
        return ""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
