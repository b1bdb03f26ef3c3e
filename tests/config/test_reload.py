"""What a changed configuration changes at once, and what after a restart."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.config.test_as_file import CHANGED
from uproxy.config.combine import setting_of
from uproxy.config.fields import FIELDS
from uproxy.config.reload import LIVE, POOLS, reload
from uproxy.config.settings import Address, Config
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.text.document import join_parts

RUNNING = Config(workers=2, max_flows=10, origins={"workers": "flag", "maxFlows": "c.yaml:3"})


def test_nothing_has_changed() -> None:
    assert reload(RUNNING, RUNNING) == (RUNNING, (), ())


def test_what_changes_at_once_and_what_does_not() -> None:
    wanted = replace(
        RUNNING, workers=3, max_flows=20, origins={"workers": "c.yaml:7", "maxFlows": "c.yaml:8"}
    )
    config, live, waiting = reload(RUNNING, wanted)
    assert (config.workers, config.max_flows) == (2, 20)
    assert config.origins == {"workers": "flag", "maxFlows": "c.yaml:8"}
    assert list(map(str, live)) == ["maxFlows from 10 to 20"]
    assert list(map(str, waiting)) == ["workers from 2 to 3"]


@pytest.mark.parametrize(
    ("wanted", "change"),
    [
        pytest.param(
            Config(nodeport_addresses=("primary", "10.0.0.0/8")),
            "nodePortAddresses from [] to [primary, 10.0.0.0/8]",
            id="list",
        ),
        pytest.param(Config(context="x"), 'context from "" to x', id="empty"),
        pytest.param(
            Config(strict_source_ranges=True), "strictSourceRanges from false to true", id="boolean"
        ),
        pytest.param(
            Config(healthz_address=Address("::1", 1)),
            "healthzBindAddress from 0.0.0.0:10256 to [::1]:1",
            id="address",
        ),
        pytest.param(Config(state_dir=Path("/s")), 'stateDir from "" to /s', id="path"),
        pytest.param(Config(verbosity=2), "logging.verbosity from 0 to 2", id="inside"),
    ],
)
def test_how_changes_are_written(wanted: Config, change: str) -> None:
    _, live, waiting = reload(Config(), wanted)
    assert list(map(str, live + waiting)) == [change]


def test_every_change_is_told() -> None:
    config, live, waiting = reload(Config(), CHANGED)
    named = {setting_of(each.option) for each in live + waiting}
    assert {name for name in Config.__dataclass_fields__ if name not in named} == {"origins"}
    assert {each.option for each in live} == LIVE
    again = reload(config, CHANGED)
    assert (again.live, again.waiting) == ((), waiting)


def pools(mode: str, *addresses: str) -> Config:
    ranges = tuple(map(AddressRange.parse, addresses))
    return Config(lb_mode=mode, lb_pools=(Pool(name="default", ranges=ranges),) if ranges else ())


def test_pools_change_at_once_if_addresses_come_from_pools_already() -> None:
    before, after = pools("metallb"), pools("metallb", "192.0.2.1")
    assert reload(before, after)[0] == after
    config, live, waiting = reload(pools("pools", "192.0.2.1"), pools("pools", "192.0.2.2"))
    assert config == pools("pools", "192.0.2.2")
    assert list(map(str, live)) == ["lbPools from [default=192.0.2.1] to [default=192.0.2.2]"]
    assert waiting == ()
    config, live, waiting = reload(pools("never"), after)
    assert (config, live) == (pools("never"), ())
    assert [each.field for each in waiting] == ["lb", "lbPools"]


def test_the_documentation_lists_what_changes_at_once() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = text.partition("| takes effect at once |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w.]+)`", table)) == {
        join_parts(FIELDS[each]) for each in LIVE | POOLS
    }
