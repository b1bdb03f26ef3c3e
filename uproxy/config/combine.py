"""Makes the Config of what flags, variables and the configuration file give.

A flag wins over a variable, a variable over the file, and the file over the default: for each
option by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from uproxy.config import load_balancer, syntax
from uproxy.config.given import Given, Options, WrongSetting
from uproxy.config.settings import Config

_MANIFESTS: Final = "manifests"
_OF_A_CLUSTER: Final = (
    *("kubeconfig", "context", "apiserver_address", "kubelet_kubeconfig"),
    "tls_relaxed_x509",
)
"""Options that say which cluster is served, and how it is reached."""
_RENAMED: Final = {
    "hostname_override": "node_name",
    "healthz_bind_address": "healthz_address",
    "metrics_bind_address": "metrics_address",
}
"""Options whose setting has another name, which are those of kube-proxy."""
_DEFAULTS: Final = Config()
_POOLS: Final = frozenset(("lb", "lb_pool", "lb_reserve", "lb_drain"))


class Combined(NamedTuple):
    config: Config
    """`node_name` is the given one, or ""."""
    used: Options
    """What the settings come from; those that are missing have their defaults."""
    notes: tuple[str, ...]
    """What was given and has no effect."""


def combine(*layers: Options) -> Combined:
    """The later ones win. Raises WrongSetting, whose text names a flag; see `explained`."""
    given: dict[str, Given] = {}
    for layer in layers:
        given.update(layer)
    try:
        used, notes = _from_one_place(given)
        config = _config(used)
        _check_periods(config, used)
        load_balancer.check(config)
    except WrongSetting as wrong:
        raise ValueError(wrong.explained(given)) from None
    return Combined(config, used, notes)


def setting_of(option: str) -> str:
    """The name of the field of Config that an option sets."""
    if option in _POOLS:
        return "lb_mode" if option == "lb" else "lb_pools"
    return _RENAMED.get(option, option)


def _config(given: Options) -> Config:
    settings = {setting_of(name): each.value for name, each in given.items() if name not in _POOLS}
    pools = load_balancer.PoolSettings(
        mode=_value(given, "lb", None),
        pools=_value(given, "lb_pool", ()),
        reserved=_value(given, "lb_reserve", ()),
        drained=_value(given, "lb_drain", ()),
    )
    return Config(
        **settings,
        lb_mode=load_balancer.effective_mode(pools),
        lb_pools=load_balancer.pools(pools),
    )


def _value(given: Options, name: str, default: Any) -> Any:
    return given[name].value if name in given else default


def _from_one_place(given: Options) -> tuple[Options, tuple[str, ...]]:
    """Objects come from manifests or from a cluster: from whichever is given by the source that
    wins, as in `uproxy run --config kube-proxy.yaml --manifests DIR`. Raises WrongSetting."""
    manifests = given.get(_MANIFESTS)
    # A file that --write-config-to has written has their defaults.
    cluster = {
        name: given[name]
        for name in _OF_A_CLUSTER
        if name in given and given[name].value != getattr(_DEFAULTS, name)
    }
    if manifests is None or not manifests.value or not cluster:
        return given, ()
    winner = max(each.source for each in cluster.values())
    if winner == manifests.source:
        names = ", ".join(each.name for each in cluster.values() if each.source == winner)
        raise WrongSetting(
            _MANIFESTS,
            f"objects come either from manifests or from a cluster ({names}); leave one out",
        )
    losers = cluster if winner < manifests.source else {_MANIFESTS: manifests}
    kind = "manifests" if winner < manifests.source else "a cluster"
    used = {name: each for name, each in given.items() if name not in losers}
    return used, tuple(_unused(losers, kind))


def _unused(losers: Options, kind: str) -> Iterator[str]:
    for each in losers.values():
        yield f"{each} has no effect, because the objects come from {kind}"


def _check_periods(config: Config, given: Options) -> None:
    least, most = config.min_sync_period, config.sync_period
    if least <= most:
        return
    shorter, longer = (syntax.format_duration(each) for each in (most, least))
    if "min_sync_period" in given:
        raise WrongSetting(
            "min_sync_period",
            f"{longer} is longer than the sync period ({shorter}); give a shorter time",
        )
    raise WrongSetting(
        "sync_period",
        f"{shorter} is shorter than the minimum sync period ({longer}); give a longer time",
    )
