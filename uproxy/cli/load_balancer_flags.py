"""The flags that say which addresses LoadBalancer Services get, and how these are announced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from uproxy.cli.flag_types import FlagType, choice, list_option, option, time_option
from uproxy.config import load_balancer
from uproxy.config.settings import Config
from uproxy.core.allocation import pool_syntax

_DEFAULTS: Final = Config()

lb_pool: Final = list_option(
    "--lb-pool",
    kind=FlagType("list", lambda text: (pool_syntax.parse_pool(text),)),
    help="Addresses to hand out, as [NAME=]RANGE[,RANGE...]; a RANGE is FIRST-LAST, a CIDR or "
    "an address. Without a NAME they belong to the pool default. May be repeated.",
)

LOAD_BALANCER_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    option(
        "--lb",
        kind=choice("word", load_balancer.MODES),
        show_default="never, or pools if --lb-pool is given",
        metavar="[never|node|localhost|pools|metallb]",
        help="Where Services of type LoadBalancer get addresses from: the nodes (node), 127.0.0.1 "
        "and ::1 (localhost), --lb-pool (pools), or MetalLB's IPAddressPool objects (metallb).",
    ),
    lb_pool,
    list_option(
        "--lb-reserve",
        kind=FlagType("list", pool_syntax.parse_reservations),
        help="Addresses of the pools that are not handed out (RANGE), or only to one Service "
        "(RANGE=NAMESPACE/NAME).",
    ),
    list_option(
        "--lb-drain",
        kind=FlagType("list", pool_syntax.parse_ranges),
        help="Addresses of the pools that Services keep, but that are not handed out any more.",
    ),
    option(
        "--lb-ip-mode",
        kind=FlagType("word", load_balancer.parse_ip_mode),
        default=_DEFAULTS.lb_ip_mode,
        show_default=True,
        metavar="[auto|VIP|Proxy]",
        help="The ipMode that is written into the status of Services. auto is VIP, but Proxy if "
        "another service proxy serves the same nodes.",
    ),
    option(
        "--announce",
        kind=choice("word", load_balancer.ANNOUNCE),
        default=_DEFAULTS.announce,
        show_default=True,
        metavar="[l2|routes|never]",
        help="How addresses of pools become reachable: one node answers ARP and NDP for each (l2), "
        "nodes have routes that a routing daemon exports (routes), or by other means (never).",
    ),
    time_option(
        "--announce-repeat",
        _DEFAULTS.announce_repeat,
        "How often an address that does not move is announced again; 0 means never.",
    ),
    option(
        "--lease-namespace",
        kind=FlagType("name", load_balancer.parse_namespace),
        default=_DEFAULTS.lease_namespace,
        metavar="NAME",
        help="Namespace of the Leases by which nodes agree who hands out and who announces "
        "addresses. Default: that of the Pod, or else kube-system.",
    ),
    option(
        "--metallb-namespace",
        kind=FlagType("name", load_balancer.parse_named_namespace),
        default=_DEFAULTS.metallb_namespace,
        show_default=True,
        metavar="NAME",
        help="Namespace of the IPAddressPool and L2Advertisement objects.",
    ),
)
