"""What `uproxy status --watch` and `uproxy top` show, in each order and with a filter."""

from __future__ import annotations

import pytest

from tests.cli import views
from uproxy.cli.live.listing import Listing, Order
from uproxy.cli.live.status_page import SORTS, StatusContent
from uproxy.cli.live.top_page import TopContent, sorts_from
from uproxy.cli.output.columns import plain
from uproxy.cli.output.status import overview
from uproxy.cli.output.top import SORT_KEYS, sample
from uproxy.core.report.status_format import StatusView

STATUS = views.status(
    frontends=[
        views.frontend("default/api", counts=views.counts(active_flows=7), address="10.0.0.9"),
        views.frontend("default/web", state="failed", reason="in use", address="10.0.0.1"),
        views.frontend("prod/web", counts=views.counts(active_flows=9), address="10.0.0.5"),
    ],
    services=[views.not_served("default/odd", "no ports")],
    not_ready=["default/web: in use"],
)


def listing(order: Order, status: StatusView = STATUS, **options: object) -> Listing:
    content = StatusContent(status, paint=plain, **options)  # type: ignore[arg-type]
    return content.listing(order, 120)


def services(found: Listing) -> list[str]:
    return [row.service for row in found.rows if row.service]


def frontends(found: Listing) -> list[str]:
    return [each for each in services(found) if each != "default/odd"]


@pytest.mark.parametrize(
    ("order", "shown"),
    [
        (Order("problems"), ["default/web", "default/api", "prod/web"]),
        (Order("service"), ["default/api", "default/web", "prod/web"]),
        (Order("service", reverse=True), ["prod/web", "default/web", "default/api"]),
        (Order("flows"), ["prod/web", "default/api", "default/web"]),
        (Order("address"), ["default/web", "prod/web", "default/api"]),
        (Order("problems", filter="web"), ["default/web", "prod/web"]),
        (Order("problems", filter="IN USE"), ["default/web"]),
        (Order("problems", filter="10.0.0.9"), ["default/api"]),
        (Order("problems", filter="nothing like it"), []),
    ],
)
def test_orders_and_filters_of_status(order: Order, shown: list[str]) -> None:
    assert frontends(listing(order)) == shown


@pytest.mark.parametrize("width", [None, 200, 80, 40])
@pytest.mark.parametrize("status", [STATUS, views.status()], ids=["some", "none"])
def test_it_says_what_status_says(status: StatusView, width: int | None) -> None:
    content = StatusContent(status, paint=plain)
    assert (
        content.listing(Order("service"), width).lines()[:1]
        == list(overview(status, width=width))[:1]
    )
    said = [line for line in content.listing(Order("service"), width).lines() if line]
    assert said == [line for line in overview(status, width=width) if line]


def test_services_without_frontends_can_be_explained_and_searched_for() -> None:
    found = listing(Order("problems", filter="odd"))
    assert [row.lines for row in found.rows if row.service] == [["  default/odd  no ports"]]
    assert services(found) == ["default/odd"]


def test_sections_cannot_be_explained_and_are_no_part_of_a_search() -> None:
    lines = [
        line for row in listing(Order("problems")).rows if not row.service for line in row.lines
    ]
    assert "Workers:" in lines
    assert listing(Order("problems", filter="workers")).rows == []


def test_one_state_only() -> None:
    found = listing(Order("problems"), only_frontends=True, nothing="none")
    assert found.summary == []
    assert len(found.rows) == 3
    empty = listing(Order("problems"), views.status(), only_frontends=True, nothing="none")
    assert empty.lines() == ["none"]


def test_keys_of_rows_differ() -> None:
    rows = listing(Order("problems")).rows
    assert len({row.key for row in rows}) == len(rows)


def test_every_order_of_status_is_known() -> None:
    assert [len(frontends(listing(Order(each)))) for each in SORTS] == [3] * len(SORTS)


@pytest.mark.parametrize(
    ("order", "shown"),
    [
        (Order("flows"), ["default/web", "default/api"]),
        (Order("active"), ["default/api", "default/web"]),
        (Order("active", reverse=True), ["default/web", "default/api"]),
        (Order("flows", filter="API"), ["default/api"]),
        (Order("flows", filter="x"), []),
    ],
)
def test_orders_and_filters_of_top(order: Order, shown: list[str]) -> None:
    idle = [views.frontend("default/api"), views.frontend("default/web")]
    busy = [
        views.frontend("default/api", counts=views.counts(flows=1, active_flows=8)),
        views.frontend("default/web", counts=views.counts(flows=4)),
    ]
    found = TopContent(sample(0, idle), sample(1, busy)).listing(order, 80)
    assert [row.service for row in found.rows] == shown
    assert found.head[1].split()[:3] == ["all", "5", "8"], "the sum is that of all of them"


def test_orders_of_top_begin_with_the_one_that_was_asked_for() -> None:
    for first in SORT_KEYS:
        found = sorts_from(tuple(SORT_KEYS), first)
        assert found[0] == first
        assert set(found) == set(SORT_KEYS)
