"""The kinds of objects that Kubernetes has, to tell those that uproxy does not use from those that
are misspelt."""

from __future__ import annotations

from typing import Final, NamedTuple

from uproxy.core.brief import brief_name
from uproxy.core.suggestions import closest, did_you_mean

_TABLE: Final = """
APIService Binding CSIDriver CSINode CSIStorageCapacity CertificateSigningRequest ClusterRole
ClusterRoleBinding ClusterTrustBundle ComponentStatus ConfigMap ControllerRevision CronJob
CustomResourceDefinition DaemonSet Deployment DeviceClass DeviceTaintRule EndpointSlice Endpoints
Event Eviction FlowSchema HorizontalPodAutoscaler IPAddress Ingress IngressClass Job Lease
LeaseCandidate LimitRange LocalSubjectAccessReview MutatingAdmissionPolicy
MutatingAdmissionPolicyBinding MutatingWebhookConfiguration Namespace NetworkPolicy Node
PersistentVolume PersistentVolumeClaim Pod PodCertificateRequest PodDisruptionBudget PodGroup
PodTemplate PriorityClass PriorityLevelConfiguration ReplicaSet ReplicationController
ResourceClaim ResourceClaimTemplate ResourcePoolStatusRequest ResourceQuota ResourceSlice Role
RoleBinding RuntimeClass Scale Secret SelfSubjectAccessReview SelfSubjectReview
SelfSubjectRulesReview Service ServiceAccount ServiceCIDR StatefulSet StorageClass StorageVersion
StorageVersionMigration SubjectAccessReview TokenRequest TokenReview ValidatingAdmissionPolicy
ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration VolumeAttachment
VolumeAttributesClass Workload
"""
KINDS: Final = frozenset(_TABLE.split())
"""All of them, whatever their group, as of Kubernetes 1.36."""
USED: Final = {
    "Service": "v1",
    "Endpoints": "v1",
    "Node": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
}
"""The kinds that manifests are read for, with the apiVersion that is read."""
_GROUPS: Final = frozenset({"", "apps", "autoscaling", "batch", "extensions", "policy"})
"""Kubernetes' own groups without a dot in their names. The names of its others end in ".k8s.io",
where there are kinds of other projects too, such as the Gateway."""
_SLICES: Final = "discovery.k8s.io"


class Misspelt(NamedTuple):
    """Why an object is probably not of the kind that its author wanted."""

    field: str
    """"kind" or "apiVersion"."""
    reason: str
    is_used: bool
    """Whether a kind is meant that uproxy uses: something is not served then."""


def misspelt(version: str, kind: str) -> Misspelt | None:
    """What is wrong with the apiVersion and kind of an object that uproxy does not use. None if it
    is an object of another kind, of which there are many."""
    group = version.rpartition("/")[0]
    if kind in USED:
        # A Service of Knative, for example, is a different kind of object, and not a mistake.
        if "." not in group or group.endswith(".k8s.io") or closest(group, [_SLICES]):
            return Misspelt("apiVersion", f"{kind} is read from {USED[kind]} only", is_used=True)
        return None
    ours = group in _GROUPS or group.endswith(".k8s.io")
    # A List is divided into its items, unless it has none.
    if kind in KINDS or kind.endswith("List") or not ours:
        return None
    meant = closest(kind, USED if group else (*USED, *KINDS))
    if not meant and group not in _GROUPS:
        return None
    shown = f'"{brief_name(kind)}" is not a kind that Kubernetes has'
    reason = f"{shown}, so it is ignored{did_you_mean(kind, KINDS)}"
    return Misspelt("kind", reason, is_used=meant in USED)
