"""A cluster in memory, in which an allocator's decisions are written into the Services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tests.builders import port, service
from uproxy.core.allocation.allocator import Allocator
from uproxy.core.allocation.decisions import Decision, ServiceEvent
from uproxy.core.allocation.pools import Pool, ServiceAllocation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.load_balancer import ASSIGNED, CONDITION, POOL
from uproxy.core.cluster.objects import (
    Condition,
    LoadBalancerIngress,
    LoadBalancerStatus,
    ObjectName,
    Service,
    ServicePort,
    ServiceStatus,
)

V4 = ("10.96.0.1",)
V6 = ("fd00:96::1",)


def pool(name: str, *ranges: str, **fields: Any) -> Pool:
    return Pool(name=name, ranges=tuple(map(AddressRange.parse, ranges)), **fields)


def pinned(**fields: Any) -> ServiceAllocation:
    namespaces = frozenset(fields.pop("namespaces", ()))
    return ServiceAllocation(namespaces=namespaces, **fields)


def balancer(
    full_name: str,
    *ports: ServicePort,
    cluster_ips: Iterable[str] = V4,
    created: str = "2026-01-01T00:00:00Z",
    **fields: Any,
) -> Service:
    """A Service of type LoadBalancer, with an IPv4 ClusterIP unless others are given."""
    fields.setdefault("type", "LoadBalancer")
    cluster_ips = tuple(cluster_ips)
    ip = cluster_ips[0] if cluster_ips else ""
    return service(
        full_name,
        *(ports or (port(80),)),
        ip=ip,
        cluster_ips=cluster_ips or None,
        created=created,
        **fields,
    )


def sharing(key: str, **more: str) -> dict[str, str]:
    return {"uproxy.dev/allow-shared-ip": key, **more}


def requesting(*addresses: str, **more: str) -> dict[str, str]:
    return {"metallb.io/loadBalancerIPs": ",".join(addresses), **more}


def changed(service: Service, **fields: Any) -> Service:
    """A Service with other fields of its spec, or other labels or annotations."""
    metadata = {key: fields.pop(key) for key in ("labels", "annotations") if key in fields}
    return msgspec.structs.replace(
        service,
        metadata=msgspec.structs.replace(service.metadata, **metadata),
        spec=msgspec.structs.replace(service.spec, **fields),
    )


def written(service: Service, decision: Decision) -> Service:
    """A Service whose status and annotations say what has been decided."""
    if decision.foreign:
        return service
    annotations = dict(service.metadata.annotations or {})
    for name, text in ((ASSIGNED, ",".join(decision.addresses)), (POOL, decision.pool)):
        annotations.pop(name, None)
        if text:
            annotations[name] = text
    said = decision.condition
    conditions = [each for each in service.status.conditions or () if each.type != CONDITION]
    if said is not None:
        conditions.append(
            Condition(type=CONDITION, status=said.status, reason=said.reason, message=said.message)
        )
    ingress = tuple(LoadBalancerIngress(ip=each) for each in decision.addresses)
    return msgspec.structs.replace(
        service,
        metadata=msgspec.structs.replace(service.metadata, annotations=annotations or None),
        status=ServiceStatus(
            load_balancer=LoadBalancerStatus(ingress=ingress or None),
            conditions=tuple(conditions) or None,
        ),
    )


class World:
    """A cluster with one allocator, which can be started again.

    Nodes may be given by their addresses, each with what it is called in reasons.
    """

    def __init__(self, *pools: Pool, taken: Mapping[str, str] | None = None) -> None:
        self.pools: tuple[Pool, ...] = pools
        self.namespaces: dict[str, dict[str, str]] = {"default": {}}
        self.services: dict[ObjectName, Service] = {}
        self.taken = dict(taken or {})
        self.events: list[tuple[str, ServiceEvent]] = []
        """Those of the last convergence, each with the name of its Service."""
        self.decided: list[Decision] = []
        """What the last convergence has returned."""
        self.restart()

    def restart(self) -> None:
        """Begin again, with nothing but what the cluster has."""
        self.allocator = Allocator(lambda address: self.taken.get(address, ""))
        self.allocator.set_pools(self.pools)
        self.allocator.set_namespaces(self.namespaces)
        for each in self.services.values():
            self.allocator.put(each)
        self.settle()

    def put(self, *services: Service) -> None:
        """Create Services, or change those of these names, and let the allocator decide."""
        for each in services:
            self.services[each.key] = each
            self.allocator.put(each)
        self.settle()

    def lose_lead_over(self, *services: Service) -> None:
        """Let the allocator decide about Services, and lose the lead until it is too late to write
        that."""
        for each in services:
            self.services[each.key] = each
            self.allocator.put(each)
        self.allocator.converge(complete=True)
        self.allocator.converge(complete=False)
        self.settle()

    def change(self, name: str, **fields: Any) -> None:
        """Change fields of a Service, and let the allocator decide."""
        self.put(changed(self[name], **fields))

    def delete(self, *names: str) -> None:
        for each in names:
            key = self[each].key
            del self.services[key]
            self.allocator.remove(key)
        self.settle()

    def set_pools(self, *pools: Pool) -> None:
        self.pools = pools
        self.allocator.set_pools(pools)
        self.settle()

    def set_namespaces(self, **labels: dict[str, str]) -> None:
        self.namespaces = labels
        self.allocator.set_namespaces(labels)
        self.settle()

    def settle(self) -> None:
        """Let the allocator decide, and write what it decides until nothing changes any more."""
        self.events, self.decided = [], []
        for _ in range(5):
            decisions = self.allocator.converge(complete=True)
            self.decided += decisions
            self.events += [
                (each.service.name, event) for each in decisions for event in each.events
            ]
            changes = [each for each in map(self._write, decisions) if each is not None]
            for after in changes:
                self.allocator.put(after)
            if not changes:
                return
        raise AssertionError("the allocator never comes to rest")

    def __getitem__(self, name: str) -> Service:
        namespace, _, name = name.rpartition("/")
        return self.services[ObjectName(namespace or "default", name)]

    def ips(self, name: str) -> tuple[str, ...]:
        """The addresses in the status of a Service."""
        return tuple(each.ip for each in self[name].ingress)

    def held(self) -> dict[str, tuple[str, ...]]:
        """The addresses of every Service that has some."""
        return {key.name: self.ips(str(key)) for key in self.services if self.ips(str(key))}

    def pool(self, name: str) -> str:
        """The pool that the annotation names."""
        return (self[name].metadata.annotations or {}).get(POOL, "")

    def reason(self, name: str) -> str:
        """The message of the condition, after its status."""
        [condition] = [
            each for each in self[name].status.conditions or () if each.type == CONDITION
        ]
        return f"{condition.status} {condition.message}"

    def told(self, name: str) -> list[str]:
        """The Events on a Service in the last convergence."""
        return [
            f"{each.type} {each.reason}: {each.note}" for who, each in self.events if who == name
        ]

    def _write(self, decision: Decision) -> Service | None:
        before = self.services[decision.service]
        after = written(before, decision)
        self.services[decision.service] = after
        return after if after != before else None
