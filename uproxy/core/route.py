"""The values that the control process and the workers share.

This module imports little, since there are many workers and each of them pays for its imports.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec


class ServicePortName(NamedTuple):
    """One port of one Service, which is what balancing and counting are about.

    The protocol is part of it, as in kube-proxy's ServicePortName: TCP and UDP may have the same
    port name.
    """

    namespace: str
    name: str
    port: str
    """Name of the port; "" for the only port, which needs no name."""
    protocol: str
    """One of `uproxy.core.protocols.SERVED`."""

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.namespace}/{self.name}{port}"


class Frontend(NamedTuple):
    """What clients connect to. It identifies a listener."""

    protocol: str
    """One of `uproxy.core.protocols.SERVED`."""
    address: str
    """IP address in canonical form. "0.0.0.0" and "::" stand for every address of the family."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.protocol}"


class Backend(NamedTuple):
    """An endpoint that policies allow. It is a plain tuple as well, which sockets take as an
    address."""

    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class FrontendKind(StrEnum):
    """Which field of the Service asks for a frontend."""

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
    """Version of the header that tells a backend the client's address (HAProxy's PROXY
    protocol)."""

    V1 = "v1"
    V2 = "v2"


class ClientIPMode(StrEnum):
    """Which clients' addresses backends see in place of the node's own."""

    AUTO = "auto"
    """Those of clients from outside where externalTrafficPolicy is Local, and those of this node's
    pods where kube-proxy would not masquerade them."""
    LOCAL = "local"
    """Only those of clients from outside where externalTrafficPolicy is Local."""
    NEVER = "never"

    def stricter(self, other: ClientIPMode) -> ClientIPMode:
        """The one of the two that shows fewer addresses."""
        order = tuple(ClientIPMode)
        return max(self, other, key=order.index)


class Announced(StrEnum):
    """How the network learns which node has an address that uproxy has assigned to a Service."""

    NEVER = "never"
    """uproxy has not assigned it, or does not announce it: it is claimed like any other address."""
    L2 = "l2"
    """One node has it on an interface, and answers ARP or NDP for it. It is never claimed, since
    the kernel answers ARP for claimed addresses too. Every node has its listeners open, so that the
    address can move to another node without a bind(2)."""
    ROUTES = "routes"
    """Every node that can serve it claims it, and has a route to it that a routing daemon exports.
    A node without a usable backend does not claim it, so that what its own clients send there goes
    on to a node that can serve them."""


class Route(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Everything that a listener needs to serve one frontend. Equal routes are interchangeable."""

    frontend: Frontend
    owner: ServicePortName
    kind: FrontendKind
    backends: tuple[Backend, ...]
    """The backends for every client. If `local_backends` is set, these are for this node and its
    pods only, which are short-circuited to endpoints of the whole cluster."""
    local_backends: tuple[Backend, ...] | None = None
    """With externalTrafficPolicy Local, the backends for clients from outside, which are neither
    this node nor one of its pods. If it is empty, they are refused. None means that all clients
    are treated alike."""
    serving: tuple[Backend, ...] = ()
    """For UDP, every endpoint that still serves, whatever the policies say. A flow to any other
    backend is closed, as kube-proxy deletes its conntrack entry. If empty, flows are left alone."""
    affinity_timeout: int = 0
    """Seconds since a client's last new flow for which it keeps its backend; 0 means no
    affinity."""
    balancer: BalancerKind = BalancerKind.ROUND_ROBIN
    allowed_sources: tuple[str, ...] | None = None
    """CIDRs that may connect (loadBalancerSourceRanges). None allows every client."""
    reason: str = ""
    """Why the frontend has fewer backends than one would expect; "" if all is well."""
    proxy_protocol: ProxyProtocol | None = None
    """The PROXY header that backends get before the first byte of a client; None for none."""
    preserves_outside: bool = False
    """Whether backends are to see the addresses of clients from outside."""
    preserves_pods: bool = False
    """Whether backends are to see the addresses of pods of this node."""
    announced: Announced = Announced.NEVER
    """How its address is announced."""

    @property
    def usable(self) -> bool:
        """Whether any client could be served. If not, the listener is paused."""
        return bool(self.backends) or bool(self.local_backends)
