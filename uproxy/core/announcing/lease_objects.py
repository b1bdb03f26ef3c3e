"""The Leases of announcing nodes as objects of the Kubernetes API.

Whatever Kubernetes has a field for is in that field; the rest is JSON in an annotation. Others may
write Leases too, so whatever is read is checked, and a Lease that cannot be used is only a reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from uproxy.core.announcing.leases import LARGEST_EPOCH, AnnouncerLease
from uproxy.core.ip import parse_ip, parse_network
from uproxy.core.printable import printable

LABEL: Final = "uproxy.dev/announcer"
SELECTOR: Final = f"{LABEL}=true"
"""What selects the Leases of announcing nodes among all others."""
ANNOUNCES: Final = "uproxy.dev/announces"
"""The annotation with what a Lease has no field for."""
_PREFIX: Final = "uproxy-announcer-"
_LONGEST: Final = 253
"""Characters of a name, as the API server limits them."""
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""A DNS subdomain (RFC 1123), which names of Nodes and Leases are."""
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")
_Epoch = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_EPOCH)]
_Duration = Annotated[float, msgspec.Meta(ge=0.5, le=600)]


class UnusableLease(NamedTuple):
    """A Lease that is ignored."""

    name: str
    reason: str


class _Announces(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The annotation."""

    node: str
    duration: _Duration
    renewals: Annotated[int, msgspec.Meta(ge=0)] = 0
    interfaces: dict[str, tuple[str, ...]] = {}
    holds: dict[str, _Epoch] = {}
    claims: dict[str, _Epoch] = {}
    unable: tuple[str, ...] = ()
    draining: bool = False
    hears: bool = True


class _Metadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    holder_identity: str | None = None


class _Lease(msgspec.Struct, frozen=True, kw_only=True):
    metadata: _Metadata
    spec: _Spec = _Spec()


def lease_name(node: str) -> str:
    """The name of the Lease of a node. Names of Nodes are names of Leases as well, except that the
    prefix may make them too long; a digest replaces the end then."""
    name = _PREFIX + node
    if len(name) <= _LONGEST and _NAME.fullmatch(node):
        return name
    digest = blake2b(node.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    allowed = _NOT_IN_NAMES.sub("-", node.lower())[:200].strip("-")
    return f"{_PREFIX}{allowed}-{digest}" if allowed else f"{_PREFIX}{digest}"


def encode(
    lease: AnnouncerLease, *, namespace: str, now: str, node_uid: str = ""
) -> dict[str, Any]:
    """The object to send. `now` is the time as RFC 3339 with microseconds, for people and tools
    that show Leases; uproxy itself never reads it. With the UID of its Node, the Lease is deleted
    with it."""
    metadata: dict[str, Any] = {
        "name": lease_name(lease.node),
        "namespace": namespace,
        "labels": {LABEL: "true"},
        "annotations": {ANNOUNCES: _annotation(lease)},
    }
    if lease.version:
        metadata["resourceVersion"] = lease.version
    if node_uid:
        owner = {"apiVersion": "v1", "kind": "Node", "name": lease.node, "uid": node_uid}
        metadata["ownerReferences"] = [owner]
    spec = {
        "holderIdentity": lease.instance,
        "leaseDurationSeconds": max(1, math.ceil(lease.duration)),
        "renewTime": now,
    }
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": spec,
    }


def decode(obj: Mapping[str, Any]) -> AnnouncerLease | UnusableLease:
    """What a Lease says, or why it is ignored."""
    name = _name_of(obj)
    try:
        lease = msgspec.convert(obj, _Lease)
        text = (lease.metadata.annotations or {}).get(ANNOUNCES)
        if text is None:
            return UnusableLease(name, f"it has no annotation {ANNOUNCES}")
        said = msgspec.json.decode(text, type=_Announces)
    except (ValueError, RecursionError) as error:
        return UnusableLease(name, printable(f"it cannot be read: {error}"))
    wrong = _contradiction(lease.metadata.name, said)
    if wrong:
        return UnusableLease(name, wrong)
    return AnnouncerLease(
        node=said.node,
        instance=lease.spec.holder_identity or "",
        duration=said.duration,
        version=lease.metadata.resource_version,
        renewals=said.renewals,
        interfaces=said.interfaces,
        holds=said.holds,
        claims=said.claims,
        unable=frozenset(said.unable),
        draining=said.draining,
        hears=said.hears,
    )


def _annotation(lease: AnnouncerLease) -> str:
    said = _Announces(
        node=lease.node,
        duration=lease.duration,
        renewals=lease.renewals,
        interfaces=dict(lease.interfaces),
        holds=dict(lease.holds),
        claims=dict(lease.claims),
        unable=tuple(sorted(lease.unable)),
        draining=lease.draining,
        hears=lease.hears,
    )
    return msgspec.json.encode(said).decode()


def _contradiction(name: str, said: _Announces) -> str:
    """Why what a Lease says cannot be true; "" if it can."""
    if name != lease_name(said.node):
        return printable(f'it speaks for node "{said.node}", whose Lease has another name')
    for address in (*said.holds, *said.claims, *said.unable):
        if parse_ip(address) != address:
            return printable(f'"{address}" is no IP address in canonical form')
    for subnets in said.interfaces.values():
        for each in subnets:
            if parse_network(each) is None:
                return printable(f'"{each}" is no subnet')
    return ""


def _name_of(obj: object) -> str:
    metadata = obj.get("metadata") if isinstance(obj, Mapping) else None
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return printable(name) if isinstance(name, str) else "?"
