"""The files of deploy/monitoring, as Prometheus and Grafana read them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.http.metrics_document import exported, full_page

ROOT: Final = Path(__file__).parents[2]
MONITORING: Final = ROOT / "deploy" / "monitoring"
GUIDE: Final = ROOT / "docs" / "monitoring.md"
RUNBOOK: Final = ROOT / "docs" / "alerts.md"

_VARIABLES: Final = {"$__rate_interval": "1m"}
"""What Grafana puts in place of its variables, and ".*" for all that can be selected."""


class Query(NamedTuple):
    """One expression of a panel."""

    panel: str
    expression: str
    legend: str

    def __str__(self) -> str:
        return f"{self.panel}: {self.expression}"


def known() -> Mapping[str, frozenset[str]]:
    """The labels of each metric that a uproxy with all options exports; histograms have "le"."""
    return {
        name: frozenset(each.labels) | ({"le"} if each.type == "histogram" else set())
        for name, each in exported(full_page()).items()
    }


def plain_rules() -> str:
    """The rules without the object around them, by the command that the guide has for it."""
    (command,) = re.findall(r"^    (sed .*prometheus-rule\.yaml) > .*$", GUIDE.read_text(), re.M)
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    """All alert rules."""
    return [rule for group in yaml.safe_load(plain_rules())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return found


def queries() -> Iterator[Query]:
    """What the panels ask, with all nodes and Services selected."""
    for panel in dashboard()["panels"]:
        for each in panel.get("targets", ()):
            yield Query(panel["title"], selecting_all(each["expr"]), each["legendFormat"])


def selecting_all(expression: str) -> str:
    """An expression with values in place of Grafana's variables."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\w+", ".*", expression)
