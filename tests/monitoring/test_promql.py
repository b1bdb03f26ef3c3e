"""What expressions name is found, so that the tests of rules and queries mean something."""

from __future__ import annotations

import pytest

from tests.monitoring.promql import labels_of, selected_values, unknown

EXPORTED = {
    "a_total": frozenset({"reason", "service"}),
    "b": frozenset[str](),
    "c_seconds": frozenset({"service", "le"}),
}


@pytest.mark.parametrize(
    ("expression", "missing"),
    [
        ("a_total", []),
        ("rate(a_total[5m]) > 0.5", []),
        ('sum by (service, instance) (rate(a_total{reason=~"x|by (y)", job="u"}[5m])) > 1e3', []),
        ("b / on (job, instance) b and on (job) (up == 0)", []),
        ("histogram_quantile(0.9, sum by (le) (rate(c_seconds_bucket[5m])))", []),
        ("c_seconds_count / (c_seconds_sum > bool b)", []),
        ("time() - b * (b > bool b)", []),
        ("topk(10, rate(missing_total{reason='x'}[5m]))", ["missing_total"]),
        ("a_total{reasons='x'}", ["a_total{reasons}"]),
        ("sum by (servce) (a_total)", ["by (servce)"]),
        ("sum(b) by (service)", ["by (service)"]),
        ("b{le='1'}", ["b{le}"]),
        ("b_bucket", ["b_bucket"]),
        ("c_seconds_sum{le='1'}", ["c_seconds_sum{le}"]),
        ("absent(nothing)", ["nothing"]),
    ],
)
def test_what_is_not_exported_is_found(expression: str, missing: list[str]) -> None:
    assert list(unknown(expression, EXPORTED)) == missing


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("rate(a_total[5m])", {"reason", "service", "instance", "job"}),
        ("b / on (job) a_total", {"reason", "service", "instance", "job"}),
        ("topk(3, sum by (service, job) (a_total))", {"service", "job"}),
        ("sum(a_total)", set()),
        ("absent(a_total)", set()),
    ],
)
def test_labels_of_results(expression: str, labels: set[str]) -> None:
    assert labels_of(expression, EXPORTED) == labels


def test_selected_values() -> None:
    found = selected_values('rate(a_total{x=~"1|2", y="z"}[5m]) / sum(b{x!="3"}) * c')
    assert list(found) == [
        ("a_total", "x", "1"),
        ("a_total", "x", "2"),
        ("a_total", "y", "z"),
        ("b", "x", "3"),
    ]
