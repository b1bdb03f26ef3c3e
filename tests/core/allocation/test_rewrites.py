from __future__ import annotations

from tests.builders import service
from uproxy.core.allocation.rewrites import MOST, WINDOW, Rewrites
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.core.cluster.objects import ObjectName, Service

WEB = ObjectName("default", "web")
ADDRESS = "192.0.2.10"


def web(*ingress: str, recorded: str = ADDRESS, kind: str = "LoadBalancer") -> Service:
    annotations = {ASSIGNED: recorded} if recorded else None
    return service("web", type=kind, ingress=ingress, annotations=annotations)


def fight(rewrites: Rewrites, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        rewrites.seen(web(ADDRESS), now)
        rewrites.seen(web(), now)


def test_a_status_that_is_cleared_again_and_again_is_left_alone_for_a_while() -> None:
    rewrites = Rewrites()
    fight(rewrites, MOST - 1)
    assert rewrites.reason(WEB, 0) == ""
    assert rewrites.over(WEB) is None
    fight(rewrites, 1, 5)
    assert f"{MOST} times" in rewrites.reason(WEB, 5)
    assert rewrites.total == MOST
    assert rewrites.reason(WEB, 5 + WINDOW)
    assert rewrites.over(WEB) == 5 + WINDOW
    assert rewrites.reason(WEB, 5 + WINDOW + 1) == ""


def test_what_happens_rarely_is_no_fight() -> None:
    rewrites = Rewrites()
    for time in range(5):
        fight(rewrites, 1, time * (WINDOW + 1))
    assert rewrites.reason(WEB, 4 * (WINDOW + 1)) == ""


def test_an_address_of_another_counts_as_well() -> None:
    rewrites = Rewrites()
    rewrites.seen(web(ADDRESS), 0)
    rewrites.seen(web("198.51.100.1"), 0)
    assert rewrites.total == 1


def test_what_uproxy_does_itself_does_not_count() -> None:
    rewrites = Rewrites()
    for ingress, recorded in ((ADDRESS, ADDRESS), ("", ""), ("192.0.2.11", "192.0.2.11")):
        rewrites.seen(web(*filter(None, (ingress,)), recorded=recorded), 0)
    rewrites.seen(web(kind="ClusterIP", recorded="192.0.2.11"), 0)
    rewrites.seen(web(recorded="192.0.2.11"), 0)
    assert rewrites.total == 0


def test_a_status_that_lags_behind_does_not_count_twice() -> None:
    rewrites = Rewrites()
    rewrites.seen(web(ADDRESS), 0)
    for _ in range(MOST):
        rewrites.seen(web(), 0)
    assert rewrites.total == 1


def test_what_is_gone_is_forgotten() -> None:
    rewrites = Rewrites()
    fight(rewrites, MOST)
    rewrites.keep([WEB])
    assert rewrites.reason(WEB, 0)
    rewrites.keep([])
    assert rewrites.reason(WEB, 0) == ""
    fight(rewrites, MOST)
    rewrites.gone(WEB)
    assert rewrites.reason(WEB, 0) == ""
