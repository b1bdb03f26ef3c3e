"""Endpoints of a service port: kube-proxy's TestCategorizeEndpoints."""

from __future__ import annotations

import pytest

from tests.builders import NODE
from uproxy.core.route import Backend
from uproxy.core.routing.topology import Candidate, Policies, categorize

CLUSTER = Policies()
NODE_PORT = Policies(external=True)
EXTERNAL_LOCAL = Policies(external_local=True, external=True)
INTERNAL_LOCAL = Policies(internal_local=True)
INTERNAL_LOCAL_NODE_PORT = Policies(internal_local=True, external=True)
BOTH_LOCAL = Policies(internal_local=True, external_local=True, external=True)


def ready(*zones: str, here: bool = False, nodes: tuple[str, ...] = ()) -> Candidate:
    return Candidate(Backend("", 0), local=here, zones=zones, nodes=nodes)


def dead(*zones: str, here: bool = False) -> Candidate:
    return Candidate(Backend("", 0), ready=False, serving=False, local=here, zones=zones)


def draining(*zones: str, here: bool = False, nodes: tuple[str, ...] = ()) -> Candidate:
    return ready(*zones, here=here, nodes=nodes)._replace(ready=False, terminating=True)


R, RL = ready(), ready(here=True)
T, TL = draining(), draining(here=True)
Numbers = set[int] | None


def numbers(backends: tuple[Backend, ...] | None) -> Numbers:
    return None if backends is None else {backend.port for backend in backends}


@pytest.mark.parametrize(
    ("policies", "zone", "node", "candidates", "cluster", "local_set", "anywhere"),
    [
        pytest.param(
            CLUSTER,
            *("a", NODE),
            [ready("a"), ready("b"), ready("c"), ready("a")],
            *({1, 4}, None, True),
            id="T1 hints: only the endpoints for zone a; no client needs the local set (None)",
        ),
        pytest.param(
            EXTERNAL_LOCAL,
            *("a", NODE),
            [ready("a", here=True), ready("b", here=True), ready("c"), ready("a")],
            *({1, 4}, {1, 2}, True),
            id="T2 eTP Local: hints filter the cluster set, not the local one",
        ),
        pytest.param(
            INTERNAL_LOCAL_NODE_PORT,
            *("a", NODE),
            [ready("a", here=True), ready("b", here=True), ready("c"), ready("a")],
            *({1, 4}, {1, 2}, True),
            id="T3 iTP Local with a NodePort: the same",
        ),
        pytest.param(
            CLUSTER, "", NODE, [ready("a")], {1}, None, True, id="T4 node without labels: no filter"
        ),
        pytest.param(
            CLUSTER, "", NODE, [ready("a")], {1}, None, True, id="T5 empty zone label: no filter"
        ),
        pytest.param(
            CLUSTER,
            *("b", NODE),
            [ready("a")],
            *({1}, None, True),
            id="T6 node in a zone that no endpoint is for: no filter",
        ),
        pytest.param(
            CLUSTER,
            *("a", NODE),
            [ready("a"), ready("b"), ready("c"), dead("a")],
            *({1}, None, True),
            id="T7 unready endpoint of the zone is left out",
        ),
        pytest.param(
            CLUSTER,
            *("a", NODE),
            [dead("a"), ready("b"), ready("c")],
            *({2, 3}, None, True),
            id="T8 zone has only unready endpoints: no filter",
        ),
        pytest.param(
            CLUSTER,
            *("a", NODE),
            [ready("a"), ready("b"), ready(), ready("a")],
            *({1, 2, 3, 4}, None, True),
            id="T9 one ready endpoint without hint: no filter",
        ),
        pytest.param(
            CLUSTER,
            *("c", NODE),
            [ready("a", "b", "c"), ready("b", "c"), ready("b", "d"), ready("c")],
            *({1, 2, 4}, None, True),
            id="T10 several zones in a hint",
        ),
        pytest.param(
            CLUSTER,
            *("a", "node-5"),
            [ready("a", nodes=("n1",)), ready("b", nodes=("n2",)), ready("a", nodes=("n3",))],
            *({1, 3}, None, True),
            # kube-proxy's T11 switches node hints off with a feature gate. They are GA and there
            # is no such gate here, so what remains of it is: no hint for this node, then zones.
            id="T11 (the gate does not exist here) hints for other nodes: zone hints decide",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [ready("a", nodes=(f"n{i}",)) for i in (1, 2, 3, 4)],
            *({1}, None, True),
            id="T12 node hints precede zone hints",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [ready("a", nodes=("n1",)), ready("a", nodes=("n2",)), ready()],
            *({1, 2, 3}, None, True),
            id="T13 one endpoint without any hint: no filter of either kind",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n0"),
            [
                ready("a", nodes=("n1",)),
                ready("b", nodes=("n2",)),
                ready("a", nodes=("n3",)),
                ready("c", nodes=("n4",)),
            ],
            *({1, 3}, None, True),
            id="T14 this node is not hinted, its zone is",
        ),
        pytest.param(
            EXTERNAL_LOCAL,
            *("a", NODE),
            [ready("a", here=True), ready("b", here=True), ready("a"), ready("b")],
            *({1, 3}, {1, 2}, True),
            id="T15 eTP Local with hints",
        ),
        pytest.param(
            INTERNAL_LOCAL,
            *("", NODE),
            [],
            *(None, set(), False),
            id="T16 iTP Local without endpoints: local set is empty, cluster set is None",
        ),
        pytest.param(
            INTERNAL_LOCAL,
            *("", NODE),
            [R, R],
            *(None, set(), True),
            id="T17 iTP Local, all remote: empty, but there are some",
        ),
        pytest.param(
            INTERNAL_LOCAL,
            *("", NODE),
            [RL, RL],
            *(None, {1, 2}, True),
            id="T18 iTP Local, all local",
        ),
        pytest.param(
            INTERNAL_LOCAL,
            *("", NODE),
            [RL, R],
            *(None, {1}, True),
            id="T18 iTP Local, some local",
        ),
        pytest.param(
            CLUSTER,
            *("", NODE),
            [dead(), dead()],
            *(set(), None, False),
            id="T19 none ready nor serving: empty, not None",
        ),
        pytest.param(
            CLUSTER,
            *("", NODE),
            [R, dead(), T, R],
            *({1, 4}, None, True),
            id="T20 some ready: only those",
        ),
        pytest.param(
            CLUSTER,
            *("", NODE),
            [T, TL],
            *({1, 2}, None, True),
            id="T21 all terminating and serving: all, local or not",
        ),
        pytest.param(
            INTERNAL_LOCAL_NODE_PORT,
            *("", NODE),
            [RL, R],
            *({1, 2}, {1}, True),
            id="T22 iTP Local, eTP Cluster, NodePort",
        ),
        pytest.param(
            EXTERNAL_LOCAL,
            *("", NODE),
            [RL, R],
            *({1, 2}, {1}, True),
            id="T23 iTP Cluster, eTP Local",
        ),
        pytest.param(
            BOTH_LOCAL,
            *("", NODE),
            [R, R],
            *({1, 2}, set(), True),
            id="T24 both Local, all remote: the local set is empty, not None",
        ),
        pytest.param(
            BOTH_LOCAL,
            *("", NODE),
            [T, T],
            *({1, 2}, set(), True),
            id="T25 both Local, all remote and terminating",
        ),
        pytest.param(
            EXTERNAL_LOCAL,
            *("", NODE),
            [R, dead(here=True), TL, T],
            *({1}, {3}, True),
            id="T26 each set falls back to terminating ones on its own",
        ),
        pytest.param(
            Policies(external_local=True),
            *("", NODE),
            [RL, R],
            *({1, 2}, None, True),
            id="T27 eTP Local of what cannot be reached from outside: ignored",
        ),
        pytest.param(
            INTERNAL_LOCAL,
            *("", NODE),
            [R, RL],
            *(None, {2}, True),
            id="T28 iTP Local, internal only: no cluster set",
        ),
        pytest.param(
            CLUSTER,
            *("", NODE),
            [Candidate(Backend("", 0), terminating=True), T],
            *({1}, None, True),
            id="ready though terminating (publishNotReadyAddresses): readiness wins",
        ),
        # Upstream's cases for trafficDistribution. The EndpointSlice controller gives hints to
        # endpoints that are ready, and takes them back when pods terminate.
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [draining(here=True), ready("a", nodes=("n1", "n2")), ready("b", nodes=("n3",))],
            *({2}, None, True),
            id="PreferSameNode, this node's pod terminates: the one that is hinted instead",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [draining(here=True), ready("a", nodes=("n2",)), ready("b", nodes=("n3",))],
            *({2}, None, True),
            id="PreferSameNode, it terminates, and no other is hinted yet: the zone",
        ),
        pytest.param(
            CLUSTER,
            *("c", "n1"),
            [draining(here=True), ready("a", nodes=("n2",)), ready("b", nodes=("n3",))],
            *({2, 3}, None, True),
            id="PreferSameNode, it terminates, none is for the node or its zone: all others",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [draining("a", here=True, nodes=("n1",)), draining("b", nodes=("n2",))],
            *({1, 2}, None, True),
            id="PreferSameNode, all terminate: their hints do not count",
        ),
        pytest.param(
            CLUSTER,
            *("a", NODE),
            [draining("a"), ready("b"), ready("b")],
            *({2, 3}, None, True),
            id="PreferSameZone, the zone's only pod terminates: another zone before it",
        ),
        pytest.param(
            CLUSTER,
            *("a", NODE),
            [T, ready("a"), ready("b")],
            *({2}, None, True),
            id="PreferSameZone, a terminating one without a hint does not switch hints off",
        ),
        pytest.param(
            CLUSTER,
            *("a", NODE),
            [draining("b"), draining("c"), dead("a")],
            *({1, 2}, None, True),
            id="PreferSameZone, all terminate, in other zones: all that still serve",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [ready("a", here=True, nodes=("n2",)), ready("a", nodes=("n1",))],
            *({2}, None, True),
            id="the hint decides, not the node of the pod",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [ready(nodes=("n1",)), ready(nodes=("n2",))],
            *({1}, None, True),
            id="hints for nodes without hints for zones",
        ),
        pytest.param(
            CLUSTER,
            *("a", "n1"),
            [ready("a", nodes=("n1",)), ready("a"), ready("b")],
            *({1, 2}, None, True),
            id="one without a hint for nodes: the hints for zones still count",
        ),
        pytest.param(
            INTERNAL_LOCAL,
            *("a", "n1"),
            [ready("b", here=True, nodes=("n2",)), ready("a", nodes=("n1",))],
            *(None, {1}, True),
            id="hints do not change policy Local",
        ),
        pytest.param(
            EXTERNAL_LOCAL,
            *("a", "n1"),
            [draining("a", here=True, nodes=("n1",)), ready("b", nodes=("n2",))],
            *({2}, {1}, True),
            id="eTP Local with hints: outside clients get the one that terminates here",
        ),
        pytest.param(
            NODE_PORT, "", "", [R], {1}, None, True, id="a node without name has no hints"
        ),
    ],
)
def test_categorize(
    policies: Policies,
    zone: str,
    node: str,
    candidates: list[Candidate],
    cluster: Numbers,
    local_set: Numbers,
    anywhere: bool,
) -> None:
    """Endpoints are numbered from 1, by port. None: no client needs that set; empty: the set has
    none.

    kube-proxy's tables also list all reachable endpoints; that is the union of the two sets.
    """
    numbered = [
        each._replace(backend=Backend("10.0.0.1", number))
        for number, each in enumerate(candidates, 1)
    ]
    usable = categorize(numbered, policies, node_name=node, zone=zone)
    assert numbers(usable.cluster) == cluster
    assert numbers(usable.local) == local_set
    assert usable.anywhere is anywhere
