"""The unit for systemd: systemd reads it as it is meant, and what it names is there."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from uproxy.cli.doctor.facts import CAPABILITIES
from uproxy.config.settings import Config

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "uproxy.service"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    # No setting of this unit occurs twice, which is all that this parser would not understand.
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(UNIT.read_text())
    return parser["Service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    """It would warn of every setting that it does not know."""
    unit = tmp_path / "uproxy.service"
    # It checks that the program exists, which here is somewhere else.
    unit.write_text(UNIT.read_text().replace("/opt/uproxy/bin/uproxy", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_has_the_privileges_that_uproxy_knows_a_use_for(
    service: configparser.SectionProxy,
) -> None:
    given = {each.removeprefix("CAP_") for each in service["AmbientCapabilities"].split()}
    # SYS_RESOURCE would be for raising the limit of descriptors, which LimitNOFILE does.
    assert given == CAPABILITIES.keys() - {"SYS_RESOURCE"}
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"]


def test_its_limits_are_enough_for_the_defaults(service: configparser.SectionProxy) -> None:
    defaults = Config(node_name="here")
    assert int(service["LimitNOFILE"]) >= 2 * defaults.max_flows
    assert float(service["TimeoutStopSec"].removesuffix("s")) > defaults.drain_timeout + 10
