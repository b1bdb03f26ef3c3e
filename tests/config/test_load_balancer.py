"""Settings for load balancers that contradict each other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from uproxy.config.given import WrongSetting
from uproxy.config.load_balancer import PoolSettings, check, effective_mode, pools
from uproxy.config.settings import Config
from uproxy.core.allocation.pool_syntax import parse_pool, parse_ranges, parse_reservations


def settings(
    *texts: str, mode: str | None = None, reserved: str = "", drained: str = ""
) -> PoolSettings:
    return PoolSettings(
        mode, [*map(parse_pool, texts)], parse_reservations(reserved), parse_ranges(drained)
    )


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        pytest.param(settings(), "never", id="default"),
        pytest.param(settings("192.0.2.1"), "pools", id="pools-imply-it"),
        pytest.param(settings("192.0.2.1", mode="metallb"), "metallb", id="beside-objects"),
        pytest.param(settings(mode="localhost"), "localhost", id="localhost"),
    ],
)
def test_mode(given: PoolSettings, mode: str) -> None:
    assert effective_mode(given) == mode


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(settings(mode="pools"), "--lb: pools needs addresses; give", id="none"),
        *(
            pytest.param(
                settings("192.0.2.1", mode=mode),
                f"--lb: {mode} does not use the pools that are given; leave one out",
                id=mode,
            )
            for mode in ("never", "node", "localhost")
        ),
    ],
)
def test_wrong_mode(given: PoolSettings, message: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        effective_mode(given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            settings("a=192.0.2.0/24", "b=192.0.2.255-192.0.3.1"),
            "--lb-pool: 192.0.2.0-192.0.2.255 and 192.0.2.255-192.0.3.1 of pools a and b overlap; "
            "give each address once",
            id="two-pools",
        ),
        pytest.param(
            settings("192.0.2.1", "192.0.2.1"),
            "--lb-pool: 192.0.2.1 and 192.0.2.1 of pool default overlap; give each address once",
            id="one-pool",
        ),
        pytest.param(
            settings("192.0.2.1", reserved="192.0.2.2=default/web"),
            "--lb-reserve: 192.0.2.2 is in no pool (default: 192.0.2.1); give addresses of one",
            id="reserved",
        ),
        pytest.param(
            settings(mode="metallb", drained="192.0.2.2"),
            "--lb-drain: 192.0.2.2 is in no pool (none is given); give addresses of one",
            id="drained",
        ),
    ],
)
def test_wrong_pools(given: PoolSettings, message: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        pools(given)
    assert str(caught.value) == message


def test_what_reaches_into_two_pools_is_in_both() -> None:
    given = settings(
        "a=192.0.2.0/31", "b=192.0.2.2/31", "c=192.0.2.4", drained="192.0.2.1-192.0.2.2"
    )
    assert [len(each.drained) for each in pools(given)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param(
            Config(lb_mode="metallb", manifests=(Path("x"),)), "--lb: metallb", id="manifests"
        ),
        pytest.param(
            Config(announce="routes", claim_addresses="never"), "--announce: routes", id="claims"
        ),
        pytest.param(
            Config(lb_mode="node", announce="routes"),
            "--announce: routes is for addresses of pools",
            id="routes-without-pools",
        ),
        pytest.param(
            Config(lb_mode="node", announce_repeat=60.0),
            "--announce-repeat: only addresses of pools are announced",
            id="repeat-without-pools",
        ),
        pytest.param(
            Config(lb_mode="metallb", announce_repeat=0.5),
            "--announce-repeat: neighbours ignore",
            id="repeat-too-often",
        ),
    ],
)
def test_what_does_not_fit_other_settings(config: Config, message: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        check(config)
    assert str(caught.value).startswith(message)


def test_thousands_of_reservations() -> None:
    """To compare each with each range takes 10 s."""
    addresses = [f"10.{n >> 7}.{n & 127}.1" for n in range(10_000)]
    given = settings(*addresses, reserved=",".join(addresses))
    before = time.process_time()
    [found] = pools(given)
    assert (len(found.ranges), len(found.reservations)) == (10_000, 10_000)
    assert time.process_time() - before < 3
