"""The resources that the fake API server has, and how discovery describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

_VERBS: Final = ["create", "delete", "get", "list", "patch", "update", "watch"]


class Kind(NamedTuple):
    """A resource type."""

    group: str
    """"" for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    status: bool = False
    """Whether it has a status subresource."""
    custom: bool = False
    """Whether it is defined by a CustomResourceDefinition, which may be missing."""
    counts_generations: bool = False
    """Whether metadata.generation counts the changes of its spec."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Path of everything in its group and version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"


SERVICES: Final = Kind(
    "", "v1", "services", "Service", short=("svc",), status=True, counts_generations=True
)
ENDPOINTS: Final = Kind("", "v1", "endpoints", "Endpoints", short=("ep",))
NODES: Final = Kind("", "v1", "nodes", "Node", namespaced=False, short=("no",), status=True)
NAMESPACES: Final = Kind("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",))
CORE_EVENTS: Final = Kind("", "v1", "events", "Event", short=("ev",))
EVENTS: Final = Kind("events.k8s.io", "v1", "events", "Event", short=("ev",))
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases", "Lease")
SLICES: Final = Kind(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", counts_generations=True
)
DAEMON_SETS: Final = Kind("apps", "v1", "daemonsets", "DaemonSet", short=("ds",))
DEPLOYMENTS: Final = Kind("apps", "v1", "deployments", "Deployment", short=("deploy",))
CONFIG_MAPS: Final = Kind("", "v1", "configmaps", "ConfigMap", short=("cm",))
SECRETS: Final = Kind("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",))
_RBAC: Final = ("rbac.authorization.k8s.io", "v1")
ROLES: Final = Kind(*_RBAC, "roles", "Role")
ROLE_BINDINGS: Final = Kind(*_RBAC, "rolebindings", "RoleBinding")
CLUSTER_ROLES: Final = Kind(*_RBAC, "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS: Final = Kind(
    *_RBAC, "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
POD_MONITORS: Final = Kind(
    "monitoring.coreos.com", "v1", "podmonitors", "PodMonitor", custom=True, counts_generations=True
)
PROMETHEUS_RULES: Final = Kind(
    "monitoring.coreos.com",
    "v1",
    "prometheusrules",
    "PrometheusRule",
    custom=True,
    counts_generations=True,
)
POOLS: Final = Kind(
    "metallb.io",
    "v1beta1",
    "ipaddresspools",
    "IPAddressPool",
    status=True,
    custom=True,
    counts_generations=True,
)
ADVERTISEMENTS: Final = Kind(
    "metallb.io",
    "v1beta1",
    "l2advertisements",
    "L2Advertisement",
    status=True,
    custom=True,
    counts_generations=True,
)
L2_STATUSES: Final = Kind(
    "metallb.io",
    "v1beta1",
    "servicel2statuses",
    "ServiceL2Status",
    status=True,
    custom=True,
    counts_generations=True,
)

KINDS: Final = (
    SERVICES,
    ENDPOINTS,
    NODES,
    NAMESPACES,
    CORE_EVENTS,
    EVENTS,
    LEASES,
    SLICES,
    DAEMON_SETS,
    DEPLOYMENTS,
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    POD_MONITORS,
    PROMETHEUS_RULES,
    POOLS,
    ADVERTISEMENTS,
    L2_STATUSES,
)
METALLB: Final = (POOLS, ADVERTISEMENTS, L2_STATUSES)
"""What MetalLB's CustomResourceDefinitions define."""
_BY_NAME: Final = {(each.api_version, each.kind): each for each in KINDS}


def kind_of(data: dict[str, Any]) -> Kind:
    """The resource type of an object. Raises KeyError."""
    return _BY_NAME[data["apiVersion"], data["kind"]]


def discovery(path: str, kinds: Sequence[Kind]) -> dict[str, Any] | None:
    """What a discovery path answers, as far as clients need it; None: no such path."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = sorted({(each.group, each.version) for each in kinds if each.group})
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group(group, version) for group, version in groups],
        }
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
    found = [each for each in kinds if each.root == path]
    if not found:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].api_version,
        "resources": [entry for each in found for entry in _resources(each)],
    }


def _group(group: str, version: str) -> dict[str, Any]:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _resources(kind: Kind) -> list[dict[str, Any]]:
    entry = {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": _VERBS,
        "shortNames": list(kind.short),
    }
    if not kind.status:
        return [entry]
    verbs = {"verbs": ["get", "patch", "update"], "shortNames": [], "singularName": ""}
    return [entry, {**entry, **verbs, "name": f"{kind.plural}/status"}]
