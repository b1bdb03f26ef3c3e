"""Since when changes of endpoints wait to be served: kube-proxy's rules."""

from __future__ import annotations

import pytest

from tests.builders import endpoint_slice
from uproxy.core.cluster.objects import EndpointSlice
from uproxy.core.report.network_programming import TRIGGER_TIME, PendingTriggers, Trigger

STARTED = 1767225600.0
"""2026-01-01T00:00:00Z"""
ONE, TWO = "2026-01-01T00:00:01Z", "2026-01-01T00:00:02.5Z"


def written(
    owner: str = "web",
    time: str | None = ONE,
    *,
    endpoint: str = "10.0.0.1",
    family: str = "IPv4",
    suffix: str = "1",
) -> EndpointSlice:
    plain = endpoint_slice(owner, endpoint, family=family, suffix=suffix)
    meta = plain.metadata
    annotated = type(meta)(
        name=meta.name,
        namespace=meta.namespace,
        labels=meta.labels,
        annotations=None if time is None else {TRIGGER_TIME: time},
    )
    return EndpointSlice(
        metadata=annotated,
        address_type=plain.address_type,
        endpoints=plain.endpoints,
        ports=plain.ports,
    )


def waiting(pending: PendingTriggers) -> list[tuple[str, float]]:
    return sorted((trigger.family, trigger.wall - STARTED) for trigger in pending.take())


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        pytest.param(ONE, 1.0, id="seconds"),
        pytest.param("2026-01-01T00:00:01.25Z", 1.25, id="short fraction"),
        pytest.param("2026-01-01T00:00:01.123456789Z", 1.123456, id="nanoseconds"),
        pytest.param("2026-01-01T02:00:01+02:00", 1.0, id="other zone"),
        pytest.param("2026-01-01T00:00:00Z", None, id="the moment of the start"),
        pytest.param("2025-12-31T23:59:59Z", None, id="before the start"),
        pytest.param("soon", None, id="no time"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="no annotation"),
    ],
)
def test_which_times_count(time: str | None, seconds: float | None) -> None:
    pending = PendingTriggers(started=STARTED)
    pending.applied(None, written(time=time))
    assert [wait for _, wait in waiting(pending)] == pytest.approx(
        [] if seconds is None else [seconds]
    )


def test_they_add_up_until_a_sync_takes_them() -> None:
    pending = PendingTriggers(started=STARTED)
    first, second = written(), written(time=TWO, endpoint="10.0.0.2")
    pending.applied(None, first)
    pending.applied(first, second)
    assert waiting(pending) == [("IPv4", 1.0), ("IPv4", 2.5)]
    assert waiting(pending) == []


def test_slices_of_one_change_count_once_for_each_service_and_family() -> None:
    pending = PendingTriggers(started=STARTED)
    pending.applied(None, written(suffix="1"))
    pending.applied(None, written(suffix="2"))
    pending.applied(None, written(suffix="3", endpoint="fd00::1", family="IPv6"))
    pending.applied(None, written("dns"))
    assert waiting(pending) == [("IPv4", 1.0), ("IPv4", 1.0), ("IPv6", 1.0)]


def test_a_slice_with_the_same_endpoints_changes_nothing() -> None:
    pending = PendingTriggers(started=STARTED)
    pending.applied(written(time=ONE), written(time=TWO))
    assert waiting(pending) == []


def test_a_removal_forgets_what_waits_for_its_service() -> None:
    pending = PendingTriggers(started=STARTED)
    pending.applied(None, written())
    pending.applied(None, written("dns", TWO))
    pending.removed(written(suffix="2"))
    assert waiting(pending) == [("IPv4", 2.5)]
    pending.removed(written())
    pending.applied(None, written(time=TWO))
    assert waiting(pending) == [("IPv4", 2.5)]


@pytest.mark.parametrize(
    "stray",
    [
        pytest.param(written(family="FQDN"), id="of host names"),
        pytest.param(
            EndpointSlice(
                metadata=endpoint_slice("web").metadata.__class__(
                    name="x", annotations={TRIGGER_TIME: ONE}
                ),
                address_type="IPv4",
            ),
            id="of no service",
        ),
    ],
)
def test_slices_that_are_not_served_do_not_wait(stray: EndpointSlice) -> None:
    pending = PendingTriggers(started=STARTED)
    pending.applied(None, stray)
    pending.removed(stray)
    pending.removed(None)
    assert pending.take() == []


def test_a_trigger_names_family_and_time() -> None:
    pending = PendingTriggers(started=STARTED)
    pending.applied(None, written())
    assert pending.take() == [Trigger("IPv4", STARTED + 1)]
