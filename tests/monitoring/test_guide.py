"""docs/monitoring.md: what people paste from it is understood."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.monitoring.files import GUIDE, alerts, plain_rules
from tests.monitoring.prometheus import needs_prometheus


def blocks() -> list[str]:
    """What is set apart as code."""
    found = re.findall(r"(?:^    .*\n|^\n)+", GUIDE.read_text(), flags=re.MULTILINE)
    return [textwrap.dedent(each).strip() for each in found if each.strip()]


def configurations() -> list[str]:
    return [each for each in blocks() if "scrape_configs:" in each]


@needs_prometheus
@pytest.mark.parametrize("number", range(2))
def test_prometheus_understands_its_configurations(tmp_path: Path, number: int) -> None:
    config = yaml.safe_load(configurations()[number].replace("/path/to/", f"{tmp_path}/"))
    # Debian builds Prometheus without Kubernetes.
    for scraped in config["scrape_configs"]:
        scraped.pop("kubernetes_sd_configs", None)
    (tmp_path / "token").write_text("t")
    (tmp_path / "uproxy-rules.yaml").write_text(plain_rules())
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_have_what_alerts_and_dashboard_expect() -> None:
    assert len(configurations()) == 2
    for each in configurations():
        (scraped,) = yaml.safe_load(each)["scrape_configs"]
        assert scraped["job_name"] == "uproxy"
        assert scraped["honor_labels"] is True


def test_the_number_of_alerts() -> None:
    (number,) = re.findall(r"(\d+) alerts;", GUIDE.read_text())
    assert int(number) == len(alerts())


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft (Debian: nftables)")
def test_the_firewall_is_understood(tmp_path: Path) -> None:
    """As one file, since without the rules before it, each of them alone names nothing."""
    (block,) = (each for each in blocks() if each.startswith("nft add table"))
    rules = tmp_path / "rules.nft"
    lines = block.replace("'", "").splitlines()
    rules.write_text("".join(f"{each.removeprefix('nft ')}\n" for each in lines))
    done = subprocess.run(
        ["nft", "--check", "--file", str(rules)], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("needs root")
    assert done.returncode == 0, done.stderr
