"""The flags of `uproxy run`. Where kube-proxy has one of the same meaning, it has the same name.

Each can be given as a variable too: --max-flows is UPROXY_MAX_FLOWS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from uproxy.cli.flag_types import (
    DURATION,
    POSITIVE_DURATION,
    PathValue,
    Value,
    address,
    choice,
    number,
)
from uproxy.config import syntax
from uproxy.config.settings import Config
from uproxy.core.route import BalancerKind

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULTS: Final = Config()


def default_workers() -> int:
    """One for each CPU that this process may use, up to 4."""
    return min(len(os.sched_getaffinity(0)), 4)


def config_options(function: F) -> F:
    """Decorator for a click command: all flags. Its parameters go to `options.resolve`."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


def _joined(
    ctx: click.Context, param: click.Parameter, values: tuple[tuple[str, ...], ...]
) -> tuple[str, ...]:
    """Lists may be given with commas, repeatedly, or both."""
    return tuple(each for value in values for each in value)


def _option(*names: str, kind: Value, **settings: Any) -> Callable[[F], F]:
    variable = "UPROXY_" + names[-1].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, type=kind, envvar=variable, **settings)


def _list_option(name: str, kind: Value, help: str) -> Callable[[F], F]:
    return _option(name, kind=kind, help=help, multiple=True, callback=_joined, metavar="LIST")


def _time_option(name: str, default: float, help: str, kind: Value = DURATION) -> Callable[[F], F]:
    text = syntax.format_duration(default)
    return _option(name, kind=kind, default=text, show_default=True, metavar="DURATION", help=help)


def _verbosity(text: str) -> int:
    """`-v`, `-vv`, and kube-proxy's `-v 2` and `-v=2`, which click hands on as "=2"."""
    if text and not text.strip("v"):
        return 1 + len(text)
    return syntax.parse_whole_number(text.removeprefix("="), 0, 10, "-v 2")


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    _option(
        "--manifests",
        kind=PathValue("path", Path),
        multiple=True,
        metavar="PATH",
        help="File or directory with objects to serve; repeatable.",
    ),
    _option(
        "--kubeconfig",
        kind=PathValue("path", Path),
        metavar="FILE",
        help="How to reach the cluster. Default: as a Pod of it, else $KUBECONFIG or "
        "~/.kube/config.",
    ),
    _option(
        "--context",
        kind=Value("name", str),
        default="",
        metavar="NAME",
        help="Which context of the kubeconfig, instead of its current one.",
    ),
    _option(
        "--service-proxy-name",
        kind=Value("name", syntax.parse_label_value),
        default="",
        metavar="NAME",
        help="Serve only Services whose label service.kubernetes.io/service-proxy-name is this. "
        "Default: those without that label.",
    ),
    _option(
        "--tls-relaxed-x509",
        kind=Value("boolean", syntax.parse_boolean),
        is_flag=False,
        flag_value="true",
        default=False,
        metavar="[true|false]",
        help="Accept an API server's certificate that is not strictly RFC 5280, from an old "
        "cluster.",
    ),
    _option(
        "--config",
        kind=PathValue("path", Path),
        metavar="FILE",
        help="A KubeProxyConfiguration. Other options but logging and --hostname-override are "
        "then ignored.",
    ),
    _option(
        "--hostname-override",
        kind=Value("name", str),
        default="",
        metavar="NAME",
        help="Name of this node in the cluster, else $NODE_NAME, else the host's name.",
    ),
    _list_option(
        "--nodeport-addresses",
        kind=Value("list", syntax.parse_nodeport_addresses),
        help="Where NodePorts listen: CIDRs, primary, localhost or all. Default: everywhere.",
    ),
    _option(
        "--cluster-cidr",
        kind=Value("list", syntax.parse_cluster_cidr),
        default="",
        metavar="LIST",
        help="Pod network, or one of each family: clients from there count as pods.",
    ),
    _list_option(
        "--external-ip-cidrs",
        kind=Value("list", syntax.parse_networks),
        help="CIDRs that Services may use for externalIPs though this node lacks the address.",
    ),
    _option(
        "--claim-addresses",
        kind=choice("word", ("auto", "never")),
        default=_DEFAULTS.claim_addresses,
        show_default=True,
        metavar="WORD",
        help="Whether to claim addresses of Services that this node lacks; needs CAP_NET_ADMIN.",
    ),
    _option(
        "--preserve-client-ip",
        kind=choice("word", ("auto", "never")),
        default=_DEFAULTS.preserve_client_ip,
        show_default=True,
        metavar="WORD",
        help="Whether pods see clients' addresses with externalTrafficPolicy Local; needs "
        "CAP_NET_ADMIN and nft.",
    ),
    _option(
        "--io-uring",
        kind=choice("word", ("auto", "never")),
        default=_DEFAULTS.io_uring,
        show_default=True,
        metavar="WORD",
        help="Whether workers relay by io_uring; needs Linux 6.1 and a seccomp profile that "
        "allows it.",
    ),
    _option(
        "--busy-poll",
        kind=choice("word", ("auto", "never")),
        default=_DEFAULTS.busy_poll,
        show_default=True,
        metavar="WORD",
        help="Whether workers with io_uring stay awake for up to 0.1 ms between messages that "
        "follow one another closely; only with several processors and no CPU limit.",
    ),
    _option(
        "--strict-source-ranges",
        kind=Value("boolean", syntax.parse_boolean),
        is_flag=False,
        flag_value="true",
        default=False,
        metavar="[true|false]",
        help="loadBalancerSourceRanges hold for NodePorts and externalIPs too, and close a family "
        "without a range.",
    ),
    _option(
        "--healthz-bind-address",
        kind=address(10256),
        default="0.0.0.0:10256",
        show_default=True,
        metavar="IP:PORT",
        help='Address of /healthz, /livez and /readyz; "" for none.',
    ),
    _option(
        "--metrics-bind-address",
        kind=address(10249),
        default="127.0.0.1:10249",
        show_default=True,
        metavar="IP:PORT",
        help='Address of /metrics, the API and the status page; "" for none.',
    ),
    _list_option(
        "--metrics-allowed-hosts",
        kind=Value("names", syntax.parse_host_names),
        help="Host names that requests to the metrics address may use, besides IP addresses, "
        'localhost, and the names of this host and node; "*" for any. Requests under other names '
        "are refused (DNS rebinding).",
    ),
    _option(
        "--bind-address-hard-fail",
        kind=Value("boolean", syntax.parse_boolean),
        is_flag=False,
        flag_value="true",
        default=False,
        metavar="[true|false]",
        help="End if one of those two addresses cannot be used, instead of trying again.",
    ),
    _option(
        "--workers",
        kind=number("number", 1, syntax.MAX_WORKERS, "--workers 2"),
        default=default_workers,
        show_default="one for each CPU, up to 4",
        metavar="N",
        help="Processes that relay traffic.",
    ),
    _option(
        "--balancer",
        kind=choice("balancer", tuple(BalancerKind)),
        default=_DEFAULTS.balancer.value,
        show_default=True,
        metavar="NAME",
        help="round-robin, random or least-connections, for Services that do not say.",
    ),
    _option(
        "--max-flows",
        kind=number("number", 1, syntax.MAX_FLOWS, "--max-flows 65536"),
        default=_DEFAULTS.max_flows,
        show_default=True,
        metavar="N",
        help="TCP connections and UDP flows at a time, all workers together.",
    ),
    _time_option(
        "--udp-timeout",
        _DEFAULTS.udp_timeout,
        "A UDP conversation ends after so long without a datagram.",
        POSITIVE_DURATION,
    ),
    _time_option(
        "--tcp-idle-timeout",
        _DEFAULTS.tcp_idle_timeout,
        "A TCP flow ends after so long without a byte; 0: never.",
    ),
    _time_option(
        "--half-close-timeout",
        _DEFAULTS.half_close_timeout,
        "The same, for one that has been closed from one side.",
        POSITIVE_DURATION,
    ),
    _time_option(
        "--drain-timeout",
        _DEFAULTS.drain_timeout,
        "Time that flows get to end when uproxy stops or their Service goes.",
    ),
    _time_option(
        "--min-sync-period",
        _DEFAULTS.min_sync_period,
        "Changes within so long are taken together; 0: each at once.",
    ),
    _time_option(
        "--sync-period",
        _DEFAULTS.sync_period,
        "A change not served after twice as long makes /healthz fail.",
        POSITIVE_DURATION,
    ),
    _option(
        "--state-dir",
        kind=PathValue("path", Path),
        metavar="DIR",
        help="Where the last-known state of the cluster is kept. Default: nowhere.",
    ),
    _option(
        "--log-format",
        kind=choice("format", ("text", "json")),
        default=_DEFAULTS.log_format,
        show_default=True,
        metavar="NAME",
        help="text or json, on stderr.",
    ),
    _option(
        "verbosity",
        "-v",
        "--v",
        "--verbosity",
        kind=Value("number", _verbosity),
        is_flag=False,
        flag_value="1",
        default=0,
        metavar="[N]",
        help="Log for debugging.",
    ),
)
