"""The alert rules: what they name exists, they fire when they should, and say what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.alert_cases import CASES, Series
from tests.monitoring.files import ROOT, RUNBOOK, alerts, known, plain_rules
from tests.monitoring.prometheus import needs_prometheus
from tests.monitoring.promql import labels_of, named, unknown


@pytest.mark.parametrize("alert", alerts(), ids=lambda each: each["alert"])
def test_what_it_names_is_exported(alert: dict[str, str]) -> None:
    assert named(alert["expr"]).metrics
    assert list(unknown(alert["expr"], known())) == []


def test_labels_in_texts_are_those_of_the_alert() -> None:
    """Or else the text would have a gap."""
    for alert in alerts():
        texts = alert["annotations"]["summary"] + alert["annotations"]["description"]
        used = set(re.findall(r"\$labels\.(\w+)", texts))
        assert used <= labels_of(alert["expr"], known()), alert["alert"]


def test_people_learn_how_bad_it_is_and_what_to_do() -> None:
    headings = re.findall(r"^### (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), alert["alert"]
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (ROOT / path) == RUNBOOK
        assert anchor == alert["alert"].lower()
    names = [each["alert"] for each in alerts()]
    assert sorted(headings) == sorted(names)
    assert len(set(names)) == len(names)


def expected(alert: str, series: Series, *, fires: bool) -> dict[str, Any]:
    """A test as promtool reads it: whether the alert fires after half an hour."""
    query = f'count by (alertname) (ALERTS{{alertname="{alert}", alertstate="firing"}})'
    sample = {"labels": f'{{alertname="{alert}"}}', "value": 1}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": each} for name, each in series.items()],
        "promql_expr_test": [
            {"expr": query, "eval_time": "30m", "exp_samples": [sample] if fires else []}
        ],
    }


def promtool(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *command], cwd=directory, capture_output=True, text=True, check=False
    )


@needs_prometheus
def test_each_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert set(CASES) == {each["alert"] for each in alerts()}
    tests = [
        expected(alert, series, fires=fires)
        for alert, case in CASES.items()
        for series, fires in ((case.fires, True), (case.quiet, False))
    ]
    (tmp_path / "rules.yaml").write_text(plain_rules())
    (tmp_path / "cases.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}, width=1000)
    )
    for command in ("check", "test"):
        file = {"check": "rules.yaml", "test": "cases.yaml"}[command]
        done = promtool(tmp_path, command, "rules", file)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_text_of_an_alert(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(plain_rules())
    (alert,) = (each for each in alerts() if each["alert"] == "UproxyClientsFail")
    port = {"namespace": "default", "service": "web", "port": "http", "protocol": "TCP"}
    text = {
        **alert["annotations"],
        "summary": "Clients of default/web:http/TCP reach no backend.",
        "description": alert["annotations"]["description"].replace("{{ $value | humanize }}", "1"),
    }
    case = expected("UproxyClientsFail", CASES["UproxyClientsFail"].fires, fires=True)
    found = {"exp_labels": {"severity": "critical", **port}, "exp_annotations": text}
    case["alert_rule_test"] = [
        {"eval_time": "30m", "alertname": "UproxyClientsFail", "exp_alerts": [found]}
    ]
    (tmp_path / "cases.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [case]}, width=1000)
    )
    done = promtool(tmp_path, "test", "rules", "cases.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
