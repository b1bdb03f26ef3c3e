"""Which Services a status is about, and what is said about others."""

from __future__ import annotations

import pytest

from tests.cli.views import frontend, not_served, status
from uproxy.cli.output.services import not_found, services_of
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.status_format import Filter, StatusView

WEB = Filter(namespace="default", service="web")


def view(names: list[str]) -> StatusView:
    return status(frontends=[frontend(name) for name in names])


def test_services_that_are_served_or_not() -> None:
    found = status(frontends=[frontend("a/b")], services=[not_served("c/d", "x")])
    assert services_of(found) == {"a/b", "c/d"}


@pytest.mark.parametrize(
    ("names", "asked", "advice"),
    [
        pytest.param([], WEB, "uproxy knows none", id="there are none"),
        pytest.param(["kube-system/web"], WEB, "did you mean kube-system/web?", id="namespace"),
        pytest.param(
            ["default/webb", "prod/webb", "default/database"],
            WEB,
            "did you mean default/webb or prod/webb?",
            id="spelling",
        ),
        pytest.param(
            ["default/mail", "default/news"],
            WEB,
            '"uproxy status" lists the 2 Services that it knows',
            id="nothing like it",
        ),
        pytest.param(
            ["default/web-shop", "prod/api"], WEB, "did you mean default/web-shop?", id="beginning"
        ),
        pytest.param(["a/webb"], Filter(service="web"), "did you mean a/webb?", id="anywhere"),
    ],
)
def test_no_such_service(names: list[str], asked: Filter, advice: str) -> None:
    name = "/".join(filter(None, (asked.namespace, asked.service)))
    assert not_found(view(names), asked) == f"no Service {name}; {advice}"


@pytest.mark.parametrize(
    ("names", "asked", "advice"),
    [
        pytest.param([], "default", "uproxy knows none", id="none"),
        pytest.param(["kube-system/dns"], "kube-sytem", "did you mean kube-system?", id="spelling"),
        pytest.param(["a/x"], "prod", "there are Services in a", id="one"),
        pytest.param(["a/x", "b/x", "b/y"], "prod", "there are Services in a and b", id="two"),
        pytest.param(
            ["a/x", "b/x", "c/x", "d/x", "e/x"],
            "prod",
            "there are Services in a, b, c and 2 more",
            id="many",
        ),
    ],
)
def test_no_such_namespace(names: list[str], asked: str, advice: str) -> None:
    found = not_found(view(names), Filter(namespace=asked))
    assert found == f"no Service is in the namespace {asked}; {advice}"


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(WEB, id="in its namespace"),
        pytest.param(Filter(service="web"), id="in any namespace"),
        pytest.param(Filter(namespace="default"), id="a namespace"),
        pytest.param(Filter(namespace="default", labels="app=x", state="failed"), id="no labels"),
        pytest.param(Filter(), id="everything"),
    ],
)
def test_what_exists_is_not_missed(asked: Filter) -> None:
    assert not_found(view(["default/web", "prod/api"]), asked) == ""


def test_a_service_that_is_not_found_may_be_unusable() -> None:
    bad = ObjectStatus(where="web.yaml:3", field="spec", reason="is no mapping")
    assert not_found(status(objects=[bad], synced=False), WEB) == (
        "no Service default/web; uproxy knows none yet, as it is still listing them; "
        '1 object cannot be used, as "uproxy status" shows'
    )
