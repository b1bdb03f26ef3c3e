"""The configuration file: a KubeProxyConfiguration (v1alpha1), with additional fields of uproxy.

A file that kube-proxy accepts is accepted here. As in kube-proxy, "", 0 and null in its fields mean
the default, since Go cannot tell them from absence (kubeadm writes such files). Fields that only
make sense with kernel rules are accepted, and named in one warning. An unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from uproxy.config import load_balancer, syntax
from uproxy.config.as_file import API
from uproxy.config.file_fields import KubeProxyConfiguration, parse_field
from uproxy.config.settings import Config
from uproxy.core.allocation import pool_syntax
from uproxy.core.brief import brief, brief_name
from uproxy.core.cluster.decode import explain
from uproxy.text.advice import advise
from uproxy.text.document import Document, Malformed, Parts, decode_text, join_parts
from uproxy.text.files import printable_name, read_any
from uproxy.text.yaml_text import yaml_documents

_USED: Final = {
    *API,
    "clientConnection.kubeconfig",
    *("context", "serviceProxyName", "tlsRelaxedX509"),
    *("apiServerAddresses", "kubeletKubeconfig"),
    "logging.format",
    "logging.verbosity",
    *("hostnameOverride", "nodePortAddresses", "clusterCIDR", "bindAddressHardFail"),
    *("healthzBindAddress", "metricsBindAddress", "udpIdleTimeout"),
    *("manifests", "externalIPCIDRs", "claimAddresses", "strictSourceRanges"),
    *("preserveClientIP", "ioUring", "busyPoll", "metricsAllowedHosts"),
    *("lb", "lbPools", "lbReserved", "lbDrained", "lbIPMode", "announce", "announceRepeat"),
    *("leaseNamespace", "metallbNamespace"),
    *("workers", "balancer", "maxFlows", "tcpIdleTimeout"),
    *("halfCloseTimeout", "drainTimeout", "minSyncPeriod", "syncPeriod", "stateDir"),
}
_EMPTY: Final[tuple[Any, ...]] = (None, "", 0, "0", "0s", [], {})
"""Values that mean the default."""
_HARMLESS: Final = {
    "mode": ("userspace",),
    "bindAddress": ("0.0.0.0", "::"),
    "detectLocalMode": ("ClusterCIDR", "NodeCIDR"),
}
"""Values of unused fields for which there is no warning: they ask for what uproxy does anyway."""


class ConfigFileError(Exception):
    """The file cannot be used: "FILE:LINE: FIELD: REASON"."""


class Loaded(NamedTuple):
    config: Config
    """`node_name` is that of the file; it may be ""."""
    warnings: tuple[str, ...]


class _Wrong(Exception):
    def __init__(self, parts: Parts, reason: str) -> None:
        super().__init__(reason)
        self.parts = parts
        self.reason = reason


def load_config(path: Path, *, workers: int) -> Loaded:
    """Read a file; `workers` is the default for that field. Raises ConfigFileError."""
    try:
        raw = read_any(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigFileError(
            f"{printable_name(str(path))}: {reason[:1].lower()}{reason[1:]}"
        ) from None
    return read_config(path, raw, workers=workers)


def read_config(path: Path, raw: bytes, *, workers: int) -> Loaded:
    """The same, from the bytes of a file. Relative paths in it are relative to its directory."""
    name = printable_name(str(path))
    try:
        document = _only_document(decode_text(raw))
    except Malformed as error:
        raise ConfigFileError(f"{name}:{error.line}: {brief(error.reason)}") from None
    try:
        file = _decode(document.data)
        config = _config(file, path.parent, workers)
    except (_Wrong, load_balancer.WrongSetting) as wrong:
        field = f"{brief_name(join_parts(wrong.parts))}: " if wrong.parts else ""
        line = document.locate(wrong.parts)
        raise ConfigFileError(f"{name}:{line}: {field}{brief(wrong.reason)}") from None
    ignored = list(_ignored(document.data))
    if not ignored:
        return Loaded(config, ())
    fields = brief(", ".join(ignored))
    return Loaded(config, (f"{name}: ignored, as they have no effect in uproxy: {fields}",))


def _only_document(text: str) -> Document:
    documents = []
    for each in yaml_documents(text):
        if isinstance(each, Malformed):
            raise each
        if each.data is not None:
            documents.append(each)
    if not documents:
        raise Malformed("empty; a KubeProxyConfiguration is expected", 1)
    if len(documents) > 1:
        line = documents[1].locate(())
        raise Malformed("a second document; only one KubeProxyConfiguration is expected", line)
    return documents[0]


def _decode(data: Any) -> KubeProxyConfiguration:
    if not isinstance(data, dict):
        raise _Wrong((), "a mapping is expected, with apiVersion and kind")
    for field, wanted in API.items():
        if data.get(field) != wanted:
            found = f'is "{data[field]}"' if field in data else "is missing"
            raise _Wrong((field,), f'{found}; expected "{wanted}"')
    try:
        file = msgspec.convert(data, KubeProxyConfiguration, dec_hook=parse_field)
    except msgspec.ValidationError as error:
        raise _Wrong(*advise(explain(error), data, KubeProxyConfiguration)) from None
    _check_periods(file)
    _check_detection(file)
    return file


def _check_periods(file: KubeProxyConfiguration) -> None:
    least = file.min_sync_period or Config().min_sync_period
    most = file.sync_period or Config().sync_period
    if least > most:
        lengths = [syntax.format_duration(each) for each in (least, most)]
        raise _Wrong(("minSyncPeriod",), "{} is longer than syncPeriod, {}".format(*lengths))
    for name, section in file.kernel_sections().items():
        if section.sync_period and (section.min_sync_period or 0) > section.sync_period:
            raise _Wrong((name, "minSyncPeriod"), "is longer than syncPeriod")


def _check_detection(file: KubeProxyConfiguration) -> None:
    mode, names = file.detect_local_mode, file.detect_local
    for wanted, field, name in (
        ("BridgeInterface", "bridgeInterface", names.bridge_interface if names else ""),
        (
            "InterfaceNamePrefix",
            "interfaceNamePrefix",
            names.interface_name_prefix if names else "",
        ),
    ):
        if mode == wanted and not name:
            raise _Wrong(("detectLocal", field), f"is required with detectLocalMode {wanted}")


def _config(file: KubeProxyConfiguration, directory: Path, workers: int) -> Config:
    settings = dict(_kube_proxy_settings(file)) | dict(_own_settings(file, directory))
    config = Config(**{"workers": workers, **settings})
    load_balancer.check(config)
    return config


def _kube_proxy_settings(file: KubeProxyConfiguration) -> Iterator[tuple[str, Any]]:
    """Fields where "", 0 and null mean the default."""
    if file.hostname_override:
        yield "node_name", file.hostname_override
    if file.node_port_addresses:
        yield "nodeport_addresses", tuple(map(str, file.node_port_addresses))
    if file.cluster_cidr:
        yield "cluster_cidr", syntax.parse_cluster_cidr(file.cluster_cidr)
    if file.healthz_bind_address:
        yield "healthz_address", syntax.parse_address(file.healthz_bind_address)
    if file.metrics_bind_address:
        yield "metrics_address", syntax.parse_address(file.metrics_bind_address)
    if file.bind_address_hard_fail:
        yield "bind_address_hard_fail", True
    if file.udp_idle_timeout:
        yield "udp_timeout", float(file.udp_idle_timeout)
    if file.logging is not None and file.logging.format:
        yield "log_format", file.logging.format
    if file.logging is not None and file.logging.verbosity:
        yield "verbosity", file.logging.verbosity


def _own_settings(file: KubeProxyConfiguration, directory: Path) -> Iterator[tuple[str, Any]]:
    """Fields that kube-proxy lacks: only null and absence mean the default."""
    for name, seconds in (
        ("tcp_idle_timeout", file.tcp_idle_timeout),
        ("half_close_timeout", file.half_close_timeout),
        ("drain_timeout", file.drain_timeout),
        ("sync_period", file.sync_period),
        ("min_sync_period", file.min_sync_period),
    ):
        if seconds is not None:
            yield name, float(seconds)
    for name, value in (
        ("workers", file.workers),
        ("balancer", file.balancer),
        ("max_flows", file.max_flows),
    ):
        if value is not None:
            yield name, value
    if file.manifests:
        yield "manifests", tuple(directory / each for each in file.manifests)
    for name, texts in (
        ("external_ip_cidrs", file.external_ip_cidrs),
        ("metrics_allowed_hosts", file.metrics_allowed_hosts),
    ):
        yield name, tuple(map(str, texts or ()))
    yield from _access_settings(file, directory)
    for name, choice in (
        ("claim_addresses", file.claim_addresses),
        ("preserve_client_ip", file.preserve_client_ip),
        ("io_uring", file.io_uring),
        ("busy_poll", file.busy_poll),
        ("strict_source_ranges", file.strict_source_ranges),
    ):
        if choice:
            yield name, choice
    if file.state_dir:
        yield "state_dir", directory / file.state_dir
    yield from _load_balancer_settings(file)


def _access_settings(file: KubeProxyConfiguration, directory: Path) -> Iterator[tuple[str, Any]]:
    """The fields that say how the cluster is reached, and which of its Services are served."""
    if file.client_connection is not None and file.client_connection.kubeconfig:
        yield "kubeconfig", directory / file.client_connection.kubeconfig
    if file.context:
        yield "context", file.context
    yield "apiserver_address", tuple(map(str, file.api_server_addresses or ()))
    if file.kubelet_kubeconfig:
        yield "kubelet_kubeconfig", directory / file.kubelet_kubeconfig
    if file.service_proxy_name:
        yield "service_proxy_name", str(file.service_proxy_name)
    if file.tls_relaxed_x509:
        yield "tls_relaxed_x509", True


def _load_balancer_settings(file: KubeProxyConfiguration) -> Iterator[tuple[str, Any]]:
    """The fields that say which addresses LoadBalancer Services get. Raises WrongSetting."""
    settings = load_balancer.PoolSettings(
        mode=file.lb or None,
        pools=[pool_syntax.parse_pool(each) for each in file.lb_pools or ()],
        reserved=[
            each for text in file.lb_reserved or () for each in pool_syntax.parse_reservations(text)
        ],
        drained=[each for text in file.lb_drained or () for each in pool_syntax.parse_ranges(text)],
    )
    yield "lb_mode", load_balancer.effective_mode(settings)
    yield "lb_pools", load_balancer.pools(settings)
    for name, text in (
        ("lb_ip_mode", file.lb_ip_mode),
        ("announce", file.announce),
        ("lease_namespace", file.lease_namespace),
        ("metallb_namespace", file.metallb_namespace),
    ):
        if text:
            yield name, str(text)
    if file.announce_repeat is not None:
        yield "announce_repeat", float(file.announce_repeat)


def _ignored(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Fields that are given and have no effect."""
    for name, value in data.items():
        path = f"{prefix}{name}"
        if path in _USED or value in _EMPTY or value in _HARMLESS.get(path, ()):
            continue
        if isinstance(value, dict):
            yield from _ignored(value, f"{path}.")
        else:
            yield path
