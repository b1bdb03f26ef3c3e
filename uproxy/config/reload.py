"""What becomes of a configuration that differs from the one in effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from uproxy.config.as_file import as_file
from uproxy.config.combine import setting_of
from uproxy.config.fields import FIELDS
from uproxy.config.settings import Config
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.text.document import join_parts, value_at

LIVE: Final = frozenset(
    {
        *("nodeport_addresses", "cluster_cidr", "external_ip_cidrs", "strict_source_ranges"),
        *("balancer", "max_flows", "busy_poll", "flow_log_every"),
        *("udp_timeout", "tcp_idle_timeout", "half_close_timeout", "drain_timeout"),
        *("min_sync_period", "sync_period", "verbosity", "metrics_allowed_hosts"),
    }
)
"""Options that take effect at once, besides POOLS. Others are what sockets, processes and claims
of addresses were made with at the start."""
POOLS: Final = frozenset({"lb_pool", "lb_reserve", "lb_drain"})
"""Options that take effect at once if addresses come from pools before and after."""


class Change(NamedTuple):
    """An option that has another value."""

    option: str
    field: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.field} from {self.before} to {self.after}"


class Reload(NamedTuple):
    """What a new configuration changes."""

    config: Config
    """The one to put into effect."""
    live: tuple[Change, ...]
    """What takes effect with it."""
    waiting: tuple[Change, ...]
    """What takes effect after a restart."""


def reload(running: Config, wanted: Config) -> Reload:
    """Compare the configuration in effect with a new one."""
    changes = tuple(_changes(running, wanted))
    live = LIVE
    if running.lb_mode == wanted.lb_mode and Assigning(running.lb_mode).from_pools:
        live |= POOLS
    waiting = tuple(each for each in changes if each.option not in live)
    keep = {join_parts(FIELDS[each.option]) for each in waiting}
    origins = {name: each for name, each in wanted.origins.items() if name not in keep}
    origins |= {name: each for name, each in running.origins.items() if name in keep}
    settings: dict[str, Any] = {setting_of(name): _setting(wanted, name) for name in live}
    return Reload(
        replace(running, **settings, origins=origins),
        tuple(each for each in changes if each.option in live),
        waiting,
    )


def _changes(running: Config, wanted: Config) -> Iterator[Change]:
    before, after = _all_fields(running), _all_fields(wanted)
    for option, parts in FIELDS.items():
        values = [_written(value_at(each, parts)) for each in (before, after)]
        if values[0] != values[1]:
            yield Change(option, join_parts(parts), *values)


def _all_fields(config: Config) -> Mapping[str, Any]:
    kube_proxy, own = as_file(config)
    return {**own, **kube_proxy}


def _setting(config: Config, option: str) -> Any:
    return getattr(config, setting_of(option))


def _written(value: Any) -> str:
    """A value for people, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value) or '""'
