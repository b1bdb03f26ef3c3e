"""What kube-proxy answers on a cluster of two nodes: which backends, and whose address they see.

`RECORDED` was taken down from kube-proxy 1.36.0 in nftables mode. Its nodes, n1 and n2, shared a
network with the client outside. The pods of each node were on a bridge (with hairpin mode, and
bridge-nf-call-iptables = 1), and the pod networks were routed between the nodes. Each cell is the
union of three runs of four connections or datagrams each, over IPv4; TCP and UDP never differed.
Backend b1 is a pod on n1, b2 a pod on n2. Load-balancer IPs were routed to n1 from outside.

`DERIVED` was not taken down. It follows from kube-proxy's rules: it hides the client's address from
a pod that calls itself; at NodePorts, external IPs and load-balancer IPs of policy Cluster;
at those of policy Local if the node itself calls; and at ClusterIPs, unless a pod of the node
calls. Backend h1 is in the host network of n1, h2 in that of n2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from uproxy.core.protocols import TCP, UDP

POD_N1, POD_N2, BACKEND = "pod on n1", "pod on n2", "backend pod b1"
HOST_POD, N1, N2, OUTSIDE = "hostNetwork pod on n1", "node n1", "node n2", "outside"
CALLERS: Final = (POD_N1, POD_N2, BACKEND, HOST_POD, N1, N2, OUTSIDE)

CLIENT, NODE = "client", "node"
"""The caller's own address; any address of a node."""
TIMEOUT, NOTHING = "timeout", "nothing"
"""What becomes of a TCP connection and a datagram that are dropped."""


class Tried(NamedTuple):
    """A Service of the cluster. It has ports for TCP and UDP."""

    type: str = "ClusterIP"
    backends: tuple[str, ...] = ("b1", "b2")
    external_ips: str = ""
    """ "n1": the address of that node. "own": addresses that no machine has."""
    spec: Mapping[str, Any] = MappingProxyType({})
    annotations: Mapping[str, str] = MappingProxyType({})


LOCAL: Final = {"externalTrafficPolicy": "Local"}
SERVICES: Final = {
    "cl": Tried(),
    "itp": Tried(spec={"internalTrafficPolicy": "Local"}),
    "np": Tried("NodePort"),
    "lb": Tried("LoadBalancer"),
    "lbl": Tried("LoadBalancer", spec=LOCAL),
    "lbl1": Tried("LoadBalancer", ("b1",), spec=LOCAL),
    "ex": Tried(external_ips="n1"),
    "self": Tried(backends=("b1",)),
    # Not taken down:
    "exl": Tried("LoadBalancer", external_ips="own", spec=LOCAL),
    "host": Tried("NodePort", ("h1", "h2")),
    "hostl": Tried("NodePort", ("h1", "h2"), spec=LOCAL),
}

# b1c: b1 answers and sees the client's address. b1n: it sees an address of a node. "-": not tried.
_RECORDED: Final = """
                 | pod on n1 | pod on n2 | pod b1  | host pod | node n1 | node n2 | outside
ClusterIP cl     | b1c b2c   | b1c b2c   | b1n b2c | b1n b2n  | b1n b2n | b1n b2n | -
ClusterIP itp    | b1c       | b2c       | b1n     | b1n      | b1n     | b2n     | -
ClusterIP np     | b1c b2c   | b1c b2c   | b1n b2c | b1n b2n  | b1n b2n | b1n b2n | -
ClusterIP lb     | b1c b2c   | b1c b2c   | b1n b2c | b1n b2n  | b1n b2n | b1n b2n | -
ClusterIP lbl    | b1c b2c   | b1c b2c   | b1n b2c | b1n b2n  | b1n b2n | b1n b2n | -
ClusterIP lbl1   | b1c       | b1c       | b1n     | b1n      | b1n     | b1n     | -
ClusterIP self   | b1c       | b1c       | b1n     | b1n      | b1n     | b1n     | -
NodePort np@n1   | b1n b2n   | b1n b2n   | b1n b2n | b1n b2n  | b1n b2n | b1n b2n | b1n b2n
NodePort np@n2   | b1n b2n   | b1n b2n   | b1n b2n | b1n b2n  | b1n b2n | b1n b2n | b1n b2n
NodePort lb@n1   | b1n b2n   | b1n b2n   | b1n b2n | b1n b2n  | b1n b2n | b1n b2n | b1n b2n
NodePort lb@n2   | b1n b2n   | b1n b2n   | b1n b2n | b1n b2n  | b1n b2n | b1n b2n | b1n b2n
NodePort lbl@n1  | b1c b2c   | b1c       | b1n b2c | b1n b2n  | b1n b2n | b1n     | b1c
NodePort lbl@n2  | b2c       | b1c b2c   | b2c     | b2n      | b2n     | b1n b2n | b2c
NodePort lbl1@n1 | b1c       | b1c       | b1n     | b1n      | b1n     | b1n     | b1c
NodePort lbl1@n2 | dropped   | b1c       | dropped | dropped  | dropped | b1n     | dropped
LB-IP lb         | b1n b2n   | b1n b2n   | b1n b2n | b1n b2n  | b1n b2n | b1n b2n | b1n b2n
LB-IP lbl        | b1c b2c   | b1c b2c   | b1n b2c | b1n b2n  | b1n b2n | b1n b2n | b1c
LB-IP lbl1       | b1c       | b1c       | b1n     | b1n      | b1n     | b1n     | b1c
externalIP ex    | b1n b2n   | b1n b2n   | b1n b2n | b1n b2n  | b1n b2n | b1n b2n | b1n b2n
"""
_DERIVED: Final = """
                 | pod on n1 | pod on n2 | pod b1  | host pod | node n1 | node n2 | outside
ClusterIP cl     | -         | -         | -       | -        | -       | -       | b1n b2n
ClusterIP itp    | -         | -         | -       | -        | -       | -       | b1n
ClusterIP host   | h1c h2c   | h1c h2c   | h1c h2c | h1n h2n  | h1n h2n | h1n h2n | h1n h2n
NodePort host@n1 | h1n h2n   | h1n h2n   | h1n h2n | h1n h2n  | h1n h2n | h1n h2n | h1n h2n
NodePort host@n2 | h1n h2n   | h1n h2n   | h1n h2n | h1n h2n  | h1n h2n | h1n h2n | h1n h2n
NodePort hostl@n1| h1c h2c   | h1c       | h1c h2c | h1n h2n  | h1n h2n | h1n     | h1c
NodePort hostl@n2| h2c       | h1c h2c   | h2c     | h2n      | h2n     | h1n h2n | h2c
NodePort exl@n1  | b1c b2c   | b1c       | b1n b2c | b1n b2n  | b1n b2n | b1n     | b1c
LB-IP exl        | b1c b2c   | b1c b2c   | b1n b2c | b1n b2n  | b1n b2n | b1n b2n | b1c
externalIP exl   | b1c b2c   | b1c b2c   | b1n b2c | b1n b2n  | b1n b2n | b1n b2n | b1c
"""


class Row(NamedTuple):
    """One question, and kube-proxy's answer."""

    caller: str
    kind: str
    """Of the address: "ClusterIP", "NodePort", "LB-IP" or "externalIP"."""
    service: str
    at: str
    """For a NodePort, the node whose address it is: "n1" or "n2"; otherwise ""."""
    protocol: str
    answer: frozenset[str]
    """For example {"b1 sees client"}, or {TIMEOUT}."""

    def __str__(self) -> str:
        place = f"{self.kind} of {self.service}" + (f" at {self.at}" if self.at else "")
        return f"{self.caller} to {place}, {self.protocol}"

    @property
    def served_by(self) -> str:
        """The node whose proxy gets it: that of the NodePort, otherwise that of the caller, as
        each node serves all other addresses itself. Clients outside reach n1."""
        return self.at or ("n2" if self.caller in (POD_N2, N2) else "n1")

    @property
    def is_from_pod(self) -> bool:
        """Whether a pod calls that has an address of its own."""
        return self.caller in (POD_N1, POD_N2, BACKEND)

    @property
    def home(self) -> str:
        """The caller's node; "" outside."""
        if self.caller == OUTSIDE:
            return ""
        return "n2" if self.caller in (POD_N2, N2) else "n1"


def _rows(table: str) -> Iterator[Row]:
    _, _, *lines = table.splitlines()
    for line in lines:
        where, *cells = (each.strip() for each in line.split("|"))
        kind, name = where.split()
        service, _, at = name.partition("@")
        for caller, cell in zip(CALLERS, cells, strict=True):
            if cell != "-":
                for protocol in (TCP, UDP):
                    yield Row(caller, kind, service, at, protocol, _answer(cell, protocol))


def _answer(cell: str, protocol: str) -> frozenset[str]:
    if cell == "dropped":
        return frozenset((TIMEOUT if protocol == TCP else NOTHING,))
    seen = {"c": CLIENT, "n": NODE}
    return frozenset(f"{each[:-1]} sees {seen[each[-1]]}" for each in cell.split())


RECORDED: Final = tuple(_rows(_RECORDED))
DERIVED: Final = tuple(_rows(_DERIVED))
