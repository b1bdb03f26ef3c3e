"""The values that the control process and the workers share.

A worker imports this module and little else, so it stays small: workers are many, and each pays
for what it imports.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec


class ServicePortName(NamedTuple):
    """Identity of what is balanced: one port of one Service, protocol included (B: kube-proxy)."""

    namespace: str
    name: str
    port: str
    """Name of the port; "" for the only, unnamed port."""
    protocol: str
    """One of `uproxy.core.protocols.SERVED`."""

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.namespace}/{self.name}{port}"


class Frontend(NamedTuple):
    """What clients connect to; identity of a listener."""

    protocol: str
    """One of `uproxy.core.protocols.SERVED`."""
    address: str
    """Canonical IP address; "0.0.0.0" and "::" stand for every address of the family."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.protocol}"


class Backend(NamedTuple):
    """A usable endpoint after policy. A plain tuple too, so that sockets take it as an address."""

    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class FrontendKind(StrEnum):
    """Which field of the Service asked for a frontend."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    EXTERNAL_IP = "ExternalIP"
    LOAD_BALANCER_IP = "LoadBalancerIP"


class BalancerKind(StrEnum):
    """How a backend is chosen for a new flow."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_CONNECTIONS = "least-connections"


class ProxyProtocol(StrEnum):
    """Version of the header that tells a backend who the client is (PROXY protocol, HAProxy)."""

    V1 = "v1"
    V2 = "v2"


class Route(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """All that one frontend needs. Equal routes are interchangeable."""

    frontend: Frontend
    owner: ServicePortName
    kind: FrontendKind
    backends: tuple[Backend, ...]
    """For every client, or, where `local_backends` is set, for this node and its pods only
    (the cluster set, to which they are short-circuited)."""
    local_backends: tuple[Backend, ...] | None = None
    """externalTrafficPolicy Local: for clients that are neither this node nor a pod of the
    cluster. Empty means that those are refused. None: they are treated like everybody."""
    serving: tuple[Backend, ...] = ()
    """UDP only: every endpoint that still serves, whatever the policies say. A flow whose backend
    is not among them is closed (kube-proxy's conntrack clean-up); empty leaves flows alone."""
    affinity_timeout: int = 0
    """Seconds of ClientIP affinity since a client's last new flow; 0: no affinity."""
    balancer: BalancerKind = BalancerKind.ROUND_ROBIN
    allowed_sources: tuple[str, ...] | None = None
    """CIDRs that may connect (loadBalancerSourceRanges); None: everybody."""
    reason: str = ""
    """Why the frontend has fewer backends than a reader would expect; "" when all is well."""
    proxy_protocol: ProxyProtocol | None = None
    """TCP only: backends get this header before the first byte of the client."""

    @property
    def usable(self) -> bool:
        """Whether any client at all could be served; otherwise the listener is paused."""
        return bool(self.backends) or bool(self.local_backends)
