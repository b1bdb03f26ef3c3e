"""The dashboard: what it names exists, and its panels have places of their own."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

from tests.monitoring.files import dashboard, known, queries, selecting_all
from tests.monitoring.promql import labels_of, named, unknown


def places() -> list[dict[str, int]]:
    return [each["gridPos"] for each in dashboard()["panels"]]


def test_what_its_queries_name_is_exported() -> None:
    missing = {str(each): list(unknown(each.expression, known())) for each in queries()}
    assert len(missing) > 50
    assert {query: names for query, names in missing.items() if names} == {}


def test_labels_in_legends_are_those_of_the_results() -> None:
    for query in queries():
        used = set(re.findall(r"{{(\w+)}}", query.legend))
        assert used <= labels_of(query.expression, known()), query


def test_its_variables_are_values_of_labels_that_exist() -> None:
    variables = {each["name"]: each for each in dashboard()["templating"]["list"]}
    asked = {name: each["query"]["query"] for name, each in variables.items() if "multi" in each}
    assert set(asked) == {"job", "instance", "namespace", "service"}
    for name, query in asked.items():
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found is not None
        assert found[2] == name
        (metric,) = named(found[1]).metrics
        assert list(unknown(selecting_all(found[1]), known())) == []
        assert name in known()[metric] | {"instance", "job"}


def test_every_variable_that_is_used_exists() -> None:
    variables = {each["name"] for each in dashboard()["templating"]["list"]}
    for panel in dashboard()["panels"]:
        used = set(re.findall(r"\$\{?(\w+)", str(panel))) - {"__rate_interval"}
        assert used <= variables, panel["title"]


def test_panels_do_not_overlap() -> None:
    def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
        return all(
            a[at] < b[at] + b[size] and b[at] < a[at] + a[size]
            for at, size in (("x", "w"), ("y", "h"))
        )

    assert all(each["x"] + each["w"] <= 24 for each in places())
    assert not [pair for pair in combinations(places(), 2) if overlap(*pair)]
    assert overlap(places()[1], places()[1])


def test_panels_are_told_apart() -> None:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    titles = [each["title"] for each in panels]
    assert len(set(titles)) == len(titles)
    assert {each["type"] for each in panels} == {"row", "stat", "timeseries", "table"}
