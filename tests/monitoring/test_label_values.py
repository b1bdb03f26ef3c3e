"""The values by which rules and queries select series occur: an alert whose value was renamed would
never fire again."""

from __future__ import annotations

import pytest

from tests.http.metrics_document import LABEL_VALUES
from tests.http.test_load_balancer_metrics import STATUS
from tests.http.test_metrics import flat
from tests.monitoring.files import alerts, queries
from tests.monitoring.promql import selected_values
from uproxy.http.load_balancer_metrics import load_balancer_metrics

EXPRESSIONS = [each["expr"] for each in alerts()] + [each.expression for each in queries()]
ANYTHING = {".*", "Uproxy.*"}


def occurring() -> dict[tuple[str, str], set[str]]:
    """The values of each label of which they are known."""
    services = "uproxy_load_balancer_services"
    states = {
        dict(labels)["state"]
        for name, labels in flat(load_balancer_metrics(STATUS))
        if name == services
    }
    found = {
        (metric, label): {each.value for each in values}
        for metric, (label, values) in LABEL_VALUES.items()
    }
    return found | {
        (services, "state"): states,
        ("up", "job"): {"uproxy"},
        ("ALERTS", "alertstate"): {"pending", "firing"},
    }


@pytest.mark.parametrize("expression", sorted({e for e in EXPRESSIONS if "{" in e}))
def test_they_occur(expression: str) -> None:
    known = occurring()
    unknown = [
        f'{metric}{{{label}="{value}"}}'
        for metric, label, value in selected_values(expression)
        if value not in ANYTHING and value not in known.get((metric, label), set())
    ]
    assert unknown == []
