"""The fields that objects of the Kubernetes API have, to find those that are misspelt.

Objects are decoded without the fields that uproxy does not use, as every client of the API has to
do it. So a misspelt field would be ignored silently. The API server warns of it: unknown field
"spec.nodeport".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from uproxy.core.suggestions import did_you_mean

_KINDS: Final = {
    ("v1", "Service"),
    ("v1", "Endpoints"),
    ("v1", "Namespace"),
    ("v1", "Node"),
    ("v1", "Pod"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("metallb.io/v1beta1", "IPAddressPool"),
    ("metallb.io/v1beta1", "L2Advertisement"),
}
"""The kinds whose fields are known. Each has a type of the same name."""

_TABLE: Final = """
Service: apiVersion kind metadata:ObjectMeta spec:ServiceSpec status:ServiceStatus
EndpointSlice: addressType apiVersion endpoints:Endpoint kind metadata:ObjectMeta
    ports:EndpointPort
Endpoints: apiVersion kind metadata:ObjectMeta subsets:EndpointSubset
Node: apiVersion kind metadata:ObjectMeta spec:NodeSpec status:NodeStatus
Namespace: apiVersion kind metadata:ObjectMeta spec:NamespaceSpec status:NamespaceStatus
Pod: apiVersion kind metadata:ObjectMeta spec:PodSpec status:PodStatus
ObjectMeta: annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers
    generateName generation labels managedFields name namespace ownerReferences:OwnerReference
    resourceVersion selfLink uid
ServiceSpec: allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName
    externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies ipFamilyPolicy
    loadBalancerClass loadBalancerIP loadBalancerSourceRanges ports:ServicePort
    publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig:SessionAffinityConfig
    trafficDistribution type
ServiceStatus: conditions:Condition loadBalancer:LoadBalancerStatus
Endpoint: addresses conditions:EndpointConditions deprecatedTopology hints:EndpointHints hostname
    nodeName targetRef:ObjectReference zone
EndpointPort: appProtocol name port protocol
EndpointSubset: addresses:EndpointAddress notReadyAddresses:EndpointAddress ports:EndpointPort
NodeSpec: configSource externalID podCIDR podCIDRs providerID taints:Taint unschedulable
NodeStatus: addresses:NodeAddress allocatable capacity conditions:NodeCondition config
    daemonEndpoints declaredFeatures features images nodeInfo phase runtimeHandlers
    volumesAttached volumesInUse
NamespaceSpec: finalizers
NamespaceStatus: conditions:NamespaceCondition phase
PodSpec: activeDeadlineSeconds affinity automountServiceAccountToken containers:Container
    dnsConfig:PodDNSConfig dnsPolicy enableServiceLinks ephemeralContainers hostAliases:HostAlias
    hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets
    initContainers:Container nodeName nodeSelector os overhead preemptionPolicy priority
    priorityClassName readinessGates:PodReadinessGate resourceClaims resources restartPolicy
    runtimeClassName schedulerName schedulingGates schedulingGroup securityContext serviceAccount
    serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain
    terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes
PodStatus: allocatedResources conditions:PodCondition containerStatuses ephemeralContainerStatuses
    extendedResourceClaimStatus hostIP hostIPs:HostIP initContainerStatuses message
    nodeAllocatableResourceClaimStatuses nominatedNodeName observedGeneration phase podIP
    podIPs:PodIP qosClass reason resize resourceClaimStatuses resources startTime
OwnerReference: apiVersion blockOwnerDeletion controller kind name uid
ServicePort: appProtocol name nodePort port protocol targetPort
SessionAffinityConfig: clientIP:ClientIPConfig
Condition: lastTransitionTime message observedGeneration reason status type
LoadBalancerStatus: ingress:LoadBalancerIngress
EndpointConditions: ready serving terminating
EndpointHints: forNodes:ForNode forZones:ForZone
ObjectReference: apiVersion fieldPath kind name namespace resourceVersion uid
EndpointAddress: hostname ip nodeName targetRef:ObjectReference
Taint: effect key timeAdded value
NodeAddress: address type
NodeCondition: lastHeartbeatTime lastTransitionTime message reason status type
NamespaceCondition: lastTransitionTime message reason status type
Container: args command env:EnvVar envFrom image imagePullPolicy lifecycle:Lifecycle
    livenessProbe:Probe name ports:ContainerPort readinessProbe:Probe resizePolicy resources
    restartPolicy restartPolicyRules securityContext startupProbe:Probe stdin stdinOnce
    terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts:VolumeMount
    workingDir
PodDNSConfig: nameservers options:PodDNSConfigOption searches
HostAlias: hostnames ip
PodReadinessGate: conditionType
PodCondition: lastProbeTime lastTransitionTime message observedGeneration reason status type
HostIP: ip
PodIP: ip
ClientIPConfig: timeoutSeconds
LoadBalancerIngress: hostname ip ipMode ports:PortStatus
ForNode: name
ForZone: name
EnvVar: name value valueFrom
Lifecycle: postStart:LifecycleHandler preStop:LifecycleHandler stopSignal
Probe: exec:ExecAction failureThreshold grpc:GRPCAction httpGet:HTTPGetAction initialDelaySeconds
    periodSeconds successThreshold tcpSocket:TCPSocketAction terminationGracePeriodSeconds
    timeoutSeconds
ContainerPort: containerPort hostIP hostPort name protocol
VolumeMount: mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr
PodDNSConfigOption: name value
PortStatus: error port protocol
LifecycleHandler: exec:ExecAction httpGet:HTTPGetAction sleep:SleepAction
    tcpSocket:TCPSocketAction
ExecAction: command
GRPCAction: port service
HTTPGetAction: host httpHeaders:HTTPHeader path port scheme
TCPSocketAction: host port
SleepAction: seconds
HTTPHeader: name value
IPAddressPool: apiVersion kind metadata:ObjectMeta spec:IPAddressPoolSpec
    status:IPAddressPoolStatus
IPAddressPoolSpec: addresses autoAssign avoidBuggyIPs serviceAllocation:ServiceAllocation
ServiceAllocation: namespaceSelectors:LabelSelector namespaces priority
    serviceSelectors:LabelSelector
IPAddressPoolStatus: assignedIPv4 assignedIPv6 availableIPv4 availableIPv6
L2Advertisement: apiVersion kind metadata:ObjectMeta spec:L2AdvertisementSpec status
L2AdvertisementSpec: interfaces ipAddressPoolSelectors:LabelSelector ipAddressPools
    nodeSelectors:LabelSelector preferredNodeSelectors:PreferredNodeSelector
    serviceSelectors:LabelSelector
PreferredNodeSelector: preference:LabelSelector weight
LabelSelector: matchExpressions:LabelSelectorRequirement matchLabels
LabelSelectorRequirement: key operator values
"""
"""Each type with its fields, as of Kubernetes 1.36 and MetalLB 0.16. "ports:ServicePort": the field
is of that type, or a list of such. A field without a type is not looked into: it is a value, a
mapping with keys of any name, or nothing that a Service depends on."""

_NOT_ADVISED: Final = frozenset({"status", "ownerReferences"})
"""Fields in which the author of a manifest looks for no other."""


class UnknownField(NamedTuple):
    """A field that an object of this kind does not have."""

    path: tuple[str | int, ...]
    advice: str
    """The end of a sentence: "; did you mean ...", or where it belongs; "" if neither is known."""


def unknown_fields(document: Mapping[str, Any]) -> Iterator[UnknownField]:
    """The fields of an object that the API does not know. Nothing for kinds that are not known."""
    version, kind = document.get("apiVersion"), document.get("kind")
    if isinstance(version, str) and isinstance(kind, str) and (version, kind) in _KINDS:
        yield from _unknown(document, (), kind, kind)


def _unknown(
    value: Any, path: tuple[str | int, ...], type_: str, kind: str
) -> Iterator[UnknownField]:
    if isinstance(value, list):
        for index, each in enumerate(value):
            if isinstance(each, dict):
                yield from _unknown(each, (*path, index), type_, kind)
        return
    if not isinstance(value, dict):
        return
    fields = types()[type_]
    for name, inside in value.items():
        inner = fields.get(name)
        if inner is None:
            yield UnknownField((*path, name), _advice(name, type_, kind))
        elif inner:
            yield from _unknown(inside, (*path, name), inner, kind)


def _advice(name: str, type_: str, kind: str) -> str:
    # Whoever writes spec.nodeport knows the field, and not its place.
    elsewhere = _places(kind).get(name.lower())
    if elsewhere is None or any(each.lower() == name.lower() for each in types()[type_]):
        return did_you_mean(name, types()[type_])
    if elsewhere.name == name:
        return f"; it belongs in {elsewhere.path}"
    return f'; did you mean "{elsewhere.name}" in {elsewhere.path}?'


@cache
def types() -> Mapping[str, Mapping[str, str]]:
    """By name of a type: its fields, each with its own type, or "" where that is not known."""
    found = {}
    for entry in _TABLE.strip().replace("\n    ", " ").split("\n"):
        name, _, fields = entry.partition(": ")
        split = (each.partition(":") for each in fields.split())
        found[name] = {field: type_ for field, _, type_ in split}
    return found


class _Place(NamedTuple):
    path: str
    """Of the object around it."""
    name: str


@cache
def _places(kind: str) -> Mapping[str, _Place]:
    """By name of a field in lower case: where it belongs in an object, if that is in one place
    only."""
    found: dict[str, list[_Place]] = {}
    pending = deque([(kind, "")])
    while pending:
        type_, path = pending.popleft()
        for name, inner in types()[type_].items():
            found.setdefault(name.lower(), []).append(_Place(path, name))
            if inner and name not in _NOT_ADVISED:
                pending.append((inner, f"{path}.{name}" if path else name))
    single = {word: places[0] for word, places in found.items() if len(places) == 1}
    return {word: place for word, place in single.items() if place.path}
