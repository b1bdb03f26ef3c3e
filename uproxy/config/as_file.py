"""Settings as the configuration file would say them: `file` read backwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from uproxy.config import load_balancer
from uproxy.config.settings import Address, Config
from uproxy.config.syntax import format_duration

API: Final = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
}


def as_file(config: Config) -> Mapping[str, Any]:
    """All settings under the names of the file's fields. An address that is switched off is "",
    which only a flag can say: in a file, "" is the default, as in kube-proxy."""
    return {
        **API,
        "hostnameOverride": config.node_name,
        "clientConnection": {"kubeconfig": _path(config.kubeconfig)},
        "context": config.context,
        "apiServerAddresses": list(config.apiserver_address),
        "kubeletKubeconfig": str(config.kubelet_kubeconfig),
        "serviceProxyName": config.service_proxy_name,
        "tlsRelaxedX509": config.tls_relaxed_x509,
        "manifests": [str(each) for each in config.manifests],
        "nodePortAddresses": list(config.nodeport_addresses),
        "clusterCIDR": ",".join(config.cluster_cidr),
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
        "healthzBindAddress": _address(config.healthz_address),
        "metricsBindAddress": _address(config.metrics_address),
        "metricsAllowedHosts": list(config.metrics_allowed_hosts),
        "bindAddressHardFail": config.bind_address_hard_fail,
        "workers": config.workers,
        "balancer": config.balancer.value,
        "maxFlows": config.max_flows,
        "udpIdleTimeout": format_duration(config.udp_timeout),
        "tcpIdleTimeout": format_duration(config.tcp_idle_timeout),
        "halfCloseTimeout": format_duration(config.half_close_timeout),
        "drainTimeout": format_duration(config.drain_timeout),
        "minSyncPeriod": format_duration(config.min_sync_period),
        "syncPeriod": format_duration(config.sync_period),
        "stateDir": _path(config.state_dir),
        "logging": {"format": config.log_format, "verbosity": config.verbosity},
    }


def _path(path: Path | None) -> str:
    return str(path) if path is not None else ""


def _address(address: Address | None) -> str:
    if address is None:
        return ""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
