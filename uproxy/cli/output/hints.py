"""What a person can do about a Service that is not served as it should be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from shlex import quote
from typing import Final

from uproxy.core.flows.counters import DropReason
from uproxy.core.protocols import TCP, UDP
from uproxy.core.report.status import FrontendState
from uproxy.core.report.status_format import FrontendView, HealthCheckView
from uproxy.core.routing.annotations import PROXY_PROTOCOL
from uproxy.core.routing.derive import NOWHERE

_DROPS: Final = {
    DropReason.NO_BACKEND: "there was no backend that the client may use, for example because "
    "externalTrafficPolicy is Local and no pod runs on this node",
    DropReason.DIAL_FAILED: "no backend could be reached. Is targetPort right? Do the pods listen "
    "on their own address rather than on localhost? Does a NetworkPolicy forbid it?",
    DropReason.SOURCE_REFUSED: "the client is outside spec.loadBalancerSourceRanges",
    DropReason.DESCRIPTORS: "uproxy is short of file descriptors or socket memory; raise "
    "LimitNOFILE (ulimit -n); see: uproxy doctor",
    DropReason.PORTS: "all local ports for UDP were taken, so idle flows gave way to new ones; "
    "widen net.ipv4.ip_local_port_range",
    DropReason.CAPACITY: "there were as many flows as --max-flows allows; raise it",
    DropReason.BACKEND_REFUSED: "the port of a backend was unreachable; does the pod listen for "
    "UDP on targetPort?",
    DropReason.BUFFER_FULL: "a socket buffer was full; datagrams arrive faster than the backend "
    "reads them, or net.core.rmem_default is too small",
    DropReason.SEND_FAILED: "the kernel refused to send a datagram; it is too long, there is no "
    "route, or a firewall forbids it",
    DropReason.DRAINING: "the worker was stopping",
    DropReason.LOOP: "a backend leads back to uproxy itself, through another address, another "
    "node or a load balancer",
    DropReason.IDLE: "nothing was transferred for --tcp-idle-timeout, or for --half-close-timeout "
    "after one side had closed",
}

_NO_PODS: Final[Mapping[str, str]] = {}

_GIVE_AN_ADDRESS: Final = (
    "give it type NodePort or an externalIP. If it is of type LoadBalancer, uproxy gives it an "
    "address when it is started with --lb (docs/load-balancer.md)"
)

_IN_USE: Final = "in use"
"""What reasons say of a port that another process has."""
_UNCLAIMED: Final = ("--claim-addresses", "CAP_NET_ADMIN")
"""Parts of the reasons why uproxy does not claim an address that it would claim otherwise. There is
nothing to do here about an address that another node has, or announces."""
_NC_OPTION: Final = {TCP: "", UDP: "u"}
_SS_OPTION: Final = {TCP: "t", UDP: "u"}
"""How nc and ss are told a protocol. Another version of uproxy may know others."""


def drop_meaning(reason: str) -> str:
    """What a reason in Counters.dropped means; "" for one that is not known."""
    try:
        return _DROPS[DropReason(reason)]
    except ValueError:
        return ""


def hints(
    service: str,
    frontends: Iterable[FrontendView],
    checks: Iterable[HealthCheckView],
    unannounced: Collection[str] = (),
    pods: Mapping[str, str] = _NO_PODS,
    reasons: Collection[str] = (),
) -> list[str]:
    """What to check and what to do, each once; nothing if all is well. `unannounced` are addresses
    that some node should announce, and none does. `pods` are names of pods by ADDRESS:PORT, and
    `reasons` why the Service itself is not served."""
    # People copy commands from here, so names in them are quoted.
    namespace, name = map(quote, service.partition("/")[::2])
    frontends = tuple(frontends)
    # An address without a usable endpoint is announced by no node, whatever the node is like.
    paused = {each.address for each in frontends if each.state == FrontendState.PAUSED}
    found = [_GIVE_AN_ADDRESS] if NOWHERE in reasons else []
    found += [
        f"no node announces {each}, so no client finds it; on each node that should: uproxy doctor"
        for each in unannounced
        if each not in paused
    ]
    # Those that wait to be announced are open already.
    others = (
        each
        for each in frontends
        if each.state != FrontendState.ELSEWHERE or each.address not in unannounced
    )
    found += [
        hint for each in others for hint in _frontend_hints(namespace, name, each, pods) if hint
    ]
    found += [
        f"health check port {each.port} is not open; find out which process has it: "
        f"{_port_owner_command(TCP, each.port)}"
        for each in checks
        if _IN_USE in each.reason
    ]
    return list(dict.fromkeys(found))


def _frontend_hints(
    namespace: str, name: str, each: FrontendView, pods: Mapping[str, str]
) -> Iterator[str]:
    match each.state:
        case FrontendState.PAUSED:
            yield from _paused(namespace, name, each)
        case FrontendState.FAILED:
            yield _failed(each)
        case FrontendState.ELSEWHERE if any(mark in each.reason for mark in _UNCLAIMED):
            yield (
                f"this node does not have {each.address}: uproxy listens as soon as an interface "
                "has it, and claims it by itself with --claim-addresses auto and CAP_NET_ADMIN"
            )
        case FrontendState.CONFLICT:
            yield (
                f"give {namespace}/{name} a port other than {each.port}, or delete the other "
                "Service, which is older and therefore keeps it"
            )
        case FrontendState.SERVING if each.local_backends == []:
            yield (
                "only pods on other nodes are ready: with externalTrafficPolicy Local, clients "
                "from outside are refused here, and the health check tells load balancers so"
            )
    if each.state == FrontendState.DEGRADED and each.none_answers:
        yield (
            f"no backend answers. Do the pods listen on {_target_port(each)}, and on their own "
            "address rather than on localhost? Does a NetworkPolicy forbid it? Try it from this "
            f"node: {_dial_command(each)}"
        )
    elif each.state == FrontendState.DEGRADED:
        yield (
            "other pods answer, so look for what is different about those that do not: "
            f"{_describe_command(namespace, each, pods)}. Try it from this node: "
            f"{_dial_command(each)}"
        )
    if each.state == FrontendState.SERVING and each.counts.dial_failures:
        yield (
            "dials have failed: if a pod is ready but does not answer, its readinessProbe does not "
            "notice, targetPort is wrong, or a NetworkPolicy is in the way"
        )
    if "frontends of uproxy itself" in each.reason:
        yield (
            "an endpoint must be the address of a pod, not one that uproxy listens on: traffic "
            "would go round in a loop"
        )


def _target_port(each: FrontendView) -> str:
    ports = sorted({backend.rpartition(":")[2] for backend in each.failing})
    return f"port {ports[0]}" if len(ports) == 1 else "targetPort"


def _describe_command(namespace: str, each: FrontendView, pods: Mapping[str, str]) -> str:
    named = [pods[address] for address in each.failing if address in pods]
    if named:
        return f"kubectl describe pod -n {namespace} {quote(named[0])}"
    return f"kubectl get pods -n {namespace} -o wide"


def _dial_command(each: FrontendView) -> str:
    address, _, port = (each.failing or each.backends)[0].rpartition(":")
    return f"nc -zv{_NC_OPTION.get(each.protocol, '')} {quote(address.strip('[]'))} {quote(port)}"


def _paused(namespace: str, name: str, each: FrontendView) -> Iterator[str]:
    label = f"kubernetes.io/service-name={name}"
    slices = f"kubectl get endpointslices -n {namespace} -l {label}"
    if each.reason.startswith("internalTrafficPolicy"):
        yield (
            "spec.internalTrafficPolicy is Local, so the ClusterIP leads only to pods on this "
            f"node: run one here, or set the policy to Cluster; {slices} -o wide"
        )
    elif each.reason.startswith(f"annotation {PROXY_PROTOCOL}"):
        yield (
            "set the annotation to v1 or v2, as the backends expect it, or remove it: "
            f"kubectl annotate -n {namespace} service {name} --overwrite {PROXY_PROTOCOL}=v2"
        )
    elif each.reason.startswith("no ready"):
        yield f"the pods are not ready: kubectl get pods -n {namespace} -o wide; {slices}"
    else:
        yield f"{each.reason}: does spec.selector match the labels of pods? {slices}"


def _failed(each: FrontendView) -> str:
    causes: tuple[tuple[str, Callable[[], str]], ...] = (
        (
            _IN_USE,
            lambda: (
                f"another process has the port: {_port_owner_command(each.protocol, each.port)}"
            ),
        ),
        (
            "CAP_NET_BIND_SERVICE",
            lambda: (
                "grant CAP_NET_BIND_SERVICE, or: "
                f"sysctl net.ipv4.ip_unprivileged_port_start={each.port}"
            ),
        ),
        ("descriptors", lambda: "raise LimitNOFILE (ulimit -n); see: uproxy doctor"),
    )
    return next((advice() for mark, advice in causes if mark in each.reason), "")


def _port_owner_command(protocol: str, port: int) -> str:
    return f"ss -Hp{_SS_OPTION.get(protocol, '')}ln 'sport = :{port}'"
