"""Which field of which kind of document gives which option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from uproxy.config.field_types import Fields
from uproxy.config.kube_proxy_fields import KubeProxyConfiguration
from uproxy.config.uproxy_fields import UproxyConfiguration
from uproxy.text.document import Parts


class Kind(NamedTuple):
    """One kind of document in a configuration file."""

    name: str
    api_version: str
    type: type[Fields]
    options: Mapping[str, Parts]
    """The field of each option that this kind has."""

    @property
    def head(self) -> Mapping[str, str]:
        """The fields with which such a document begins."""
        return {"apiVersion": self.api_version, "kind": self.name}

    @property
    def field_names(self) -> frozenset[str]:
        """Of all fields at the top, also those that have no effect."""
        return frozenset(each.encode_name for each in msgspec.structs.fields(self.type))


SWITCHES: Final = {"serveHealthz": "healthz_bind_address", "serveMetrics": "metrics_bind_address"}
"""Fields that switch an address off, and the option that each of them sets."""

KUBE_PROXY: Final = Kind(
    "KubeProxyConfiguration",
    "kubeproxy.config.k8s.io/v1alpha1",
    KubeProxyConfiguration,
    {
        "hostname_override": ("hostnameOverride",),
        "kubeconfig": ("clientConnection", "kubeconfig"),
        "nodeport_addresses": ("nodePortAddresses",),
        "cluster_cidr": ("clusterCIDR",),
        "healthz_bind_address": ("healthzBindAddress",),
        "metrics_bind_address": ("metricsBindAddress",),
        "bind_address_hard_fail": ("bindAddressHardFail",),
        "log_format": ("logging", "format"),
        "verbosity": ("logging", "verbosity"),
    },
)
UPROXY: Final = Kind(
    "UproxyConfiguration",
    "uproxy.dev/v1alpha1",
    UproxyConfiguration,
    {
        each.name: (each.encode_name,)
        for each in msgspec.structs.fields(UproxyConfiguration)
        if each.encode_name not in ("apiVersion", "kind", *SWITCHES)
    },
)
KINDS: Final = {each.name: each for each in (KUBE_PROXY, UPROXY)}
KIND_NAMES: Final = " or ".join(KINDS)
FIELDS: Final[Mapping[str, Parts]] = {**KUBE_PROXY.options, **UPROXY.options}
"""The field of each option."""
