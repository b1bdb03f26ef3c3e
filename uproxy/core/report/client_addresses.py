"""Which clients' addresses backends see, and why they do not see others."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final, Literal, NamedTuple

from uproxy.core.ip import Family, family_of
from uproxy.core.networks import Networks
from uproxy.core.route import Backend, Route, ServicePortName

ShownAddress = Literal["preserved", "pods", "node"]
"""What backends see: the addresses of clients from outside and of this node's pods, those of its
pods only, or this node's for every client."""


class Masquerade(StrEnum):
    """Why a frontend shows this node's address although its Service asks for the client's."""

    IMPOSSIBLE = "impossible"
    """The rules that it takes cannot be installed here."""
    UNKNOWN_PODS = "unknown_pods"
    """It is not known which pods live on this node."""
    SWITCHED = "switched"
    """Some backends are behind a bridge from which their replies cannot be brought up."""
    ASTRAY = "astray"
    """Replies to pods' addresses have not come back."""


class ShownClients(NamedTuple):
    """What the backends of a frontend see."""

    address: ShownAddress
    masquerade: Masquerade | None = None
    """Why they do not see everything that the Service asks for; None: they do."""
    reason: str = ""


_UNKNOWN_PODS: Final = "this node has no routes to pods of its own within the cluster's networks"
_ASTRAY: Final = (
    "replies to the addresses of this node's pods did not come back, so pods are masqueraded"
)


@dataclass(frozen=True, kw_only=True)
class ClientAddresses:
    """Which clients' addresses backends can be shown on this node."""

    families: tuple[Family, ...] = ()
    """The families in which it is possible at all."""
    reason: str = ""
    """Why it is not possible though a Service wants it; "": it is, or no Service wants it."""
    pods: tuple[str, ...] = ()
    """CIDRs of pods of this node that can be shown."""
    switched: Mapping[str, str] = field(default_factory=dict)
    """Networks in which replies between two pods do not come by this node, with the reason."""
    astray: frozenset[ServicePortName] = frozenset()
    """Service ports whose replies to pods' addresses have not come back."""

    def shown(self, route: Route) -> ShownClients:
        """What backends see of the clients that come through a route."""
        if not route.preserves_outside and not route.preserves_pods:
            return ShownClients("node")
        family = family_of(route.frontend.address)
        if self.reason and family not in self.families:
            return ShownClients("node", Masquerade.IMPOSSIBLE, self.reason)
        outside = route.preserves_outside and family in self.families
        without_pods: ShownAddress = "preserved" if outside else "node"
        if not route.preserves_pods:
            return ShownClients(without_pods)
        if family not in self._families_of_pods:
            return ShownClients(without_pods, Masquerade.UNKNOWN_PODS, _UNKNOWN_PODS)
        if route.owner in self.astray:
            return ShownClients(without_pods, Masquerade.ASTRAY, _ASTRAY)
        reason = self._switched_reason(route.backends)
        masquerade = Masquerade.SWITCHED if reason else None
        return ShownClients("preserved" if outside else "pods", masquerade, reason)

    @cached_property
    def _families_of_pods(self) -> frozenset[Family]:
        return frozenset(family_of(each) for each in self.pods)

    @cached_property
    def _switched(self) -> tuple[tuple[Networks, str], ...]:
        return tuple(
            (Networks([ipaddress.ip_network(network)]), f"between pods of {network}: {reason}")
            for network, reason in self.switched.items()
        )

    def _switched_reason(self, backends: Iterable[Backend]) -> str:
        for network, reason in self._switched:
            if any(backend.address in network for backend in backends):
                return reason
        return ""
