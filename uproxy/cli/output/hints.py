"""From what uproxy says about one Service to what a person can do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from shlex import quote
from typing import Final

from uproxy.core.flows.counters import DropReason
from uproxy.core.protocols import TCP, UDP
from uproxy.core.report.status import FrontendState
from uproxy.core.report.status_format import FrontendView, HealthCheckView

_DROPS: Final = {
    DropReason.NO_BACKEND: "there was no backend for the client, as with externalTrafficPolicy "
    "Local and none on this node",
    DropReason.DIAL_FAILED: "no backend could be reached; is targetPort right, do the pods listen "
    "on their own address and not on localhost, does a NetworkPolicy forbid it?",
    DropReason.SOURCE_REFUSED: "the client is outside spec.loadBalancerSourceRanges",
    DropReason.DESCRIPTORS: "uproxy is short of file descriptors or socket memory; raise "
    "LimitNOFILE (ulimit -n), see: uproxy doctor",
    DropReason.CAPACITY: "there are as many flows as --max-flows allows; raise it",
    DropReason.BACKEND_REFUSED: "a backend answered port unreachable; does the pod listen for UDP "
    "on targetPort?",
    DropReason.BUFFER_FULL: "a socket buffer was full: datagrams come faster than the backend "
    "takes them, or net.core.rmem_default is small",
    DropReason.SEND_FAILED: "the kernel would not send a datagram: too long, no route, or a "
    "firewall",
    DropReason.DRAINING: "a worker was about to stop",
    DropReason.LOOP: "a backend leads back to uproxy itself, by another address, another node or a "
    "load balancer",
    DropReason.IDLE: "nothing was transferred for --tcp-idle-timeout, or half-closed for too long",
}

_NC_OPTION: Final = {TCP: "", UDP: "u"}
_SS_OPTION: Final = {TCP: "t", UDP: "u"}
"""How nc and ss are told a protocol. Another version of uproxy may know others."""


def drop_meaning(reason: str) -> str:
    """What a reason of Counters.dropped says, in a sentence; "" for one that is not known."""
    try:
        return _DROPS[DropReason(reason)]
    except ValueError:
        return ""


def hints(
    service: str, frontends: Iterable[FrontendView], checks: Iterable[HealthCheckView]
) -> list[str]:
    """What to look at and what to do, each once; nothing if all is well."""
    # The user may copy a command from here, so odd names in it are quoted.
    namespace, name = map(quote, service.partition("/")[::2])
    found = [hint for each in frontends for hint in _frontend_hints(namespace, name, each) if hint]
    found += [
        f"health check port {each.port} is not open: {_who_has(TCP, each.port)}"
        for each in checks
        if each.reason
    ]
    return list(dict.fromkeys(found))


def _frontend_hints(namespace: str, name: str, each: FrontendView) -> Iterator[str]:
    match each.state:
        case FrontendState.PAUSED:
            yield from _paused(namespace, name, each)
        case FrontendState.FAILED:
            yield _failed(each)
        case FrontendState.ELSEWHERE:
            yield (
                f"{each.address} has to be an address of this node: uproxy listens as soon as it "
                "is, and claims it by itself with --claim-addresses auto and CAP_NET_ADMIN"
            )
        case FrontendState.CONFLICT:
            yield (
                f"give {namespace}/{name} another port than {each.port}, or delete the other "
                "Service: the older one wins"
            )
        case FrontendState.SERVING if each.local_backends == []:
            yield (
                "only pods on other nodes are ready: with externalTrafficPolicy Local clients from "
                "outside are refused here, and load balancers are told so by the health check"
            )
    if each.state == FrontendState.DEGRADED:
        yield (
            f"no backend answers: is {_of_targets(each)} what the pods listen on, and on their own "
            "address rather than on localhost? does a NetworkPolicy forbid it? try it from this "
            f"node: {_try(each)}"
        )
    if each.state == FrontendState.SERVING and each.counts.dial_failures:
        yield (
            "dials have failed: a pod that is ready and does not answer has a readinessProbe that "
            "does not notice, a wrong targetPort, or a NetworkPolicy in the way"
        )
    if "frontend of uproxy itself" in each.reason:
        yield (
            "an endpoint must be the address of a pod, not one that uproxy listens on: traffic "
            "would go round in circles"
        )


def _of_targets(each: FrontendView) -> str:
    ports = sorted({backend.rpartition(":")[2] for backend in each.failing})
    return f"port {ports[0]}" if len(ports) == 1 else "targetPort"


def _try(each: FrontendView) -> str:
    address, _, port = (each.failing or each.backends)[0].rpartition(":")
    return f"nc -zv{_NC_OPTION.get(each.protocol, '')} {quote(address.strip('[]'))} {quote(port)}"


def _paused(namespace: str, name: str, each: FrontendView) -> Iterator[str]:
    label = f"kubernetes.io/service-name={name}"
    slices = f"kubectl get endpointslices -n {namespace} -l {label}"
    if each.reason.startswith("internalTrafficPolicy"):
        yield (
            "the ClusterIP is for pods on this node only, as spec.internalTrafficPolicy is Local: "
            f"run one here, or set it to Cluster; {slices} -o wide"
        )
    elif each.reason.startswith("no ready"):
        yield f"the pods are not ready: kubectl get pods -n {namespace} -o wide; {slices}"
    else:
        yield f"{each.reason}: does spec.selector match the labels of pods? {slices}"


def _failed(each: FrontendView) -> str:
    causes: tuple[tuple[str, Callable[[], str]], ...] = (
        ("in use", lambda: f"another process has the port: {_who_has(each.protocol, each.port)}"),
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


def _who_has(protocol: str, port: int) -> str:
    return f"ss -Hp{_SS_OPTION.get(protocol, '')}ln 'sport = :{port}'"
