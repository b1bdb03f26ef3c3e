"""Which backends a service port has at each kind of frontend, and why it may have none.

kube-proxy's rules decide (CategorizeEndpoints): internalTrafficPolicy concerns the ClusterIP only,
externalTrafficPolicy concerns NodePorts, external IPs and load-balancer IPs only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from uproxy.core.cluster.objects import Service, ServicePort
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import Family
from uproxy.core.protocols import SERVED, TRANSPORTS
from uproxy.core.route import Backend, FrontendKind, ServicePortName
from uproxy.core.routing.service_routes import TrafficSide
from uproxy.core.routing.topology import (
    Candidate,
    Merged,
    Policies,
    PortKey,
    Usable,
    categorize,
)

NO_ENDPOINTS: Final = "no endpoints"
NOT_READY: Final = "no ready endpoints"
NOT_LOCAL: Final = "TrafficPolicy is Local and this node has no"
"""A part of the reason where this node lacks endpoints that other nodes have."""

AddressesByFamily = Mapping[Family, list[tuple[FrontendKind, str]]]
"""Where clients reach a Service apart from NodePorts, in each of its families."""


class PortBackends(NamedTuple):
    """One service port in one address family, after all policies."""

    name: ServicePortName
    family: Family
    policies: Policies
    candidates: tuple[Candidate, ...]
    """Every endpoint, usable or not."""
    usable: Usable

    def sets(self, kind: FrontendKind) -> tuple[tuple[Backend, ...], tuple[Backend, ...] | None]:
        """A route's `backends` and `local_backends` at one kind of frontend.

        With externalTrafficPolicy Local, clients from outside get endpoints of this node only.
        This node and the cluster's pods are short-circuited to endpoints of the whole cluster, as
        in kube-proxy, so such a frontend has two sets.
        """
        cluster, local = self.usable.cluster or (), self.usable.local or ()
        if kind is FrontendKind.CLUSTER_IP:
            return (local if self.policies.internal_local else cluster), None
        return cluster, (local if self.policies.external_local else None)

    def reason(self, kind: FrontendKind) -> str:
        """Why a frontend's set, or its set for clients from outside, is empty; "" if it is not."""
        if not self.candidates:
            return NO_ENDPOINTS
        if not self.usable.anywhere:
            return NOT_READY
        internal = kind is FrontendKind.CLUSTER_IP
        wants_local = self.policies.internal_local if internal else self.policies.external_local
        if not wants_local or self.usable.local:
            return ""
        ready = "ready " if any(each.local for each in self.candidates) else ""
        lack = f"{NOT_LOCAL} {ready}endpoint"
        if internal:
            return f"internal{lack}"
        return f"external{lack}; only this node and its pods are served"

    def serving(self) -> tuple[Backend, ...]:
        """Endpoints whose flows may stay where they are, for protocols whose flows do not end.

        This is kube-proxy's rule for deleting conntrack entries, which asks for the condition
        `serving` and for no policy. A ready endpoint counts too: with publishNotReadyAddresses an
        endpoint may be ready and not serving, and its flows would be cut at each change, only to
        begin anew with the same backend.
        """
        if TRANSPORTS[self.name.protocol].flows_end:
            return ()
        return tuple(each.backend for each in self.candidates if each.serving or each.ready)

    def no_local(self) -> Iterator[tuple[TrafficSide, Family]]:
        """The policies that are Local and find an endpoint on other nodes only."""
        if self.usable.anywhere and self.usable.local == ():
            if self.policies.internal_local:
                yield "internal", self.family
            if self.policies.external_local and self.policies.external:
                yield "external", self.family


def port_backends(
    service: Service, addresses: AddressesByFamily, merged: Merged, node: NodeFacts
) -> Iterator[tuple[PortBackends, ServicePort]]:
    """Each port of a Service in each of its families. Ports whose protocol is not served are left
    out."""
    spec = service.spec
    external = {
        family: any(kind is not FrontendKind.CLUSTER_IP for kind, _ in found)
        for family, found in addresses.items()
    }
    for port in service.ports:
        if port.protocol not in SERVED:
            continue
        for family in addresses:
            policies = Policies(
                internal_local=spec.internal_traffic_policy == "Local",
                external_local=spec.external_traffic_policy == "Local",
                external=port.node_port != 0 or external[family],
            )
            candidates = merged.ports.get(PortKey(family, port.name, port.protocol), ())
            usable = categorize(candidates, policies, node_name=node.name, zone=node.zone)
            name = ServicePortName(*service.key, port.name, port.protocol)
            yield PortBackends(name, family, policies, candidates, usable), port
