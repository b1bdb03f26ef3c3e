"""The same answers as kube-proxy's: which backends, and whose address they see.

All rows of `kube_proxy_answers` are tried on two nodes with a uproxy each, for each kind of pod
network and over both IP families. `DIFFERENCES` lists every row whose answer differs, with the
reason; docs/differences.md says the same for users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

from tests.netns import kit
from tests.netns.kube_proxy_answers import (
    CLIENT,
    DERIVED,
    NODE,
    NOTHING,
    RECORDED,
    SERVICES,
    TIMEOUT,
    Row,
)
from tests.netns.peers import RESET, SILENCE, ask
from tests.netns.two_nodes import FAMILIES, Cluster
from uproxy.core.protocols import TCP

pytestmark = kit.needs("nft=nftables")

ROWS: Final = RECORDED + DERIVED
_HIDDEN, _SHOWN = f" sees {NODE}", f" sees {CLIENT}"


class Difference(NamedTuple):
    """Rows in which uproxy answers differently."""

    reason: str
    answer: Callable[[Row], frozenset[str]]
    """What uproxy answers: the same as kube-proxy in all rows that are not concerned."""


def _reset(row: Row) -> frozenset[str]:
    return frozenset(RESET if each == TIMEOUT else each for each in row.answer)


def _host_backend_hidden(row: Row) -> frozenset[str]:
    here = f"h{row.served_by[1:]}"
    return frozenset(
        each.replace(_SHOWN, _HIDDEN) if each.startswith(here) else each for each in row.answer
    )


DIFFERENCES: Final = {
    "dropped": Difference(
        "The kernel has established a connection before a userspace proxy learns of it, so the "
        "proxy can reset it, but cannot ignore it.",
        _reset,
    ),
    "backend in the host network of the node that serves": Difference(
        "It would reply to the client directly instead of through the proxy's socket.",
        _host_backend_hidden,
    ),
}


def expected(row: Row) -> frozenset[str]:
    """What uproxy answers."""
    for each in DIFFERENCES.values():
        row = row._replace(answer=each.answer(row))
    return row.answer


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_differs(name: str) -> None:
    """And is not listed for nothing."""
    assert any(DIFFERENCES[name].answer(row) != row.answer for row in ROWS)


def test_all_rows_are_tried() -> None:
    assert len(RECORDED) == 252
    assert max(Counter(row._replace(answer=frozenset()) for row in ROWS).values()) == 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(cluster: Cluster, row: Row, family: str) -> None:
    """Ask until all expected answers have come, and at least as often as there are backends."""
    wanted = expected(row)
    backends = len(SERVICES[row.service].backends)
    found: set[str] = set()
    for tries in range(4 * backends):
        if found >= wanted and tries >= backends:
            break
        found.add(_answer(cluster, row, family, patience=0.25 if NOTHING in wanted else 15))
        assert found <= wanted
    assert found == wanted


def _answer(cluster: Cluster, row: Row, family: str, patience: float) -> str:
    caller = cluster.place(row.caller)
    target = cluster.target(row.kind, row.service, family, row.at)
    answer = ask(caller.space, row.protocol, *target, patience=patience)
    if answer == SILENCE:
        return TIMEOUT if row.protocol == TCP else NOTHING
    name, _, seen = answer.partition(" ")
    if seen in cluster.net.node_addresses:
        return name + _HIDDEN
    return name + _SHOWN if seen == caller.address(family) else answer
