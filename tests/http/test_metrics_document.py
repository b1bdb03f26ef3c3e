"""docs/metrics.md is what the code has, with names and units as Prometheus advises."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.http.metrics_document import exported, full_page, metrics_document

PUBLISHED = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_it_is_up_to_date() -> None:
    assert PUBLISHED.read_text() == metrics_document(), "run: make documents"


def test_every_metric_is_in_it_with_its_type_and_labels() -> None:
    text = PUBLISHED.read_text()
    for each in exported(full_page()).values():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        assert f"| `{each.name}` | {each.type} | {labels} | " in text
    rows = re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram) \|", text, flags=re.MULTILINE)
    assert sorted(rows) == sorted(exported(full_page()))


def test_what_promtool_has_to_say_of_names_and_help() -> None:
    """Nothing, except of a name that kube-proxy has chosen: its dashboards ask for it."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=full_page(),
        capture_output=True,
        text=True,
        check=False,
    )
    said = [each for each in done.stderr.splitlines() if each]
    assert said == [
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total "
        'non-counter metrics should not have "_total" suffix'
    ]


def test_promtool_would_notice_a_metric_without_help() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input="# TYPE uproxy_x_milliseconds gauge\nuproxy_x_milliseconds 1\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no help text" in done.stderr
    assert "milliseconds" in done.stderr
