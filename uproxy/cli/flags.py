"""The flags of `uproxy run`. A flag that kube-proxy has too has the same name and meaning.

Each flag can also be set by a variable: --max-flows is UPROXY_MAX_FLOWS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from uproxy.cli.flag_types import (
    POSITIVE_DURATION,
    FlagType,
    PathType,
    address,
    choice,
    list_option,
    number,
    option,
    time_option,
)
from uproxy.cli.load_balancer_flags import LOAD_BALANCER_OPTIONS
from uproxy.config import syntax
from uproxy.config.settings import KUBELET_KUBECONFIG, Config
from uproxy.core.route import BalancerKind, ClientIPMode

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULTS: Final = Config()


def default_workers() -> int:
    """One for each CPU that this process may use, but at most 4."""
    return min(len(os.sched_getaffinity(0)), 4)


def config_options(function: F) -> F:
    """Decorator that gives a click command all flags; `effective_config.resolve` reads them."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


def _verbosity(text: str) -> int:
    """`-v`, `-vv`, and kube-proxy's `-v 2` and `-v=2`, which click passes on as "=2"."""
    if text and not text.strip("v"):
        return 1 + len(text)
    return syntax.parse_whole_number(text.removeprefix("="), 0, 10, "-v 2")


apiserver_address: Final = list_option(
    "--apiserver-address",
    kind=FlagType("list", syntax.parse_server_addresses),
    help="Addresses of the API server, HOST or HOST:PORT (default port: 6443), which are tried in "
    "turn before all others. Default: the address in the kubeconfig; in a Pod, those that uproxy "
    "finds by itself.",
)
kubelet_kubeconfig: Final = option(
    "--kubelet-kubeconfig",
    kind=PathType("path", Path),
    default=str(KUBELET_KUBECONFIG),
    show_default=True,
    metavar="FILE",
    help="In a Pod: a kubeconfig of this node's kubelet. Only the address of the API server is "
    "taken from it; it need not exist.",
)

_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    option(
        "--manifests",
        kind=PathType("path", Path),
        multiple=True,
        metavar="PATH",
        help="File or directory with manifests to serve; may be repeated.",
    ),
    option(
        "--kubeconfig",
        kind=PathType("path", Path),
        metavar="FILE",
        help="Kubeconfig of the cluster to serve. Default: the credentials of the Pod that uproxy "
        "runs in, or else $KUBECONFIG or ~/.kube/config.",
    ),
    option(
        "--context",
        kind=FlagType("name", str),
        default="",
        metavar="NAME",
        help="Context of the kubeconfig to use. Default: its current context.",
    ),
    apiserver_address,
    kubelet_kubeconfig,
    option(
        "--service-proxy-name",
        kind=FlagType("name", syntax.parse_label_value),
        default="",
        metavar="NAME",
        help="Serve only Services whose label service.kubernetes.io/service-proxy-name has this "
        "value. Default: serve only Services without that label.",
    ),
    option(
        "--tls-relaxed-x509",
        kind=FlagType("boolean", syntax.parse_boolean),
        is_flag=False,
        flag_value="true",
        default=False,
        metavar="[true|false]",
        help="Accept API server certificates that do not strictly conform to RFC 5280, as old "
        "clusters have them.",
    ),
    option(
        "--config",
        kind=PathType("path", Path),
        metavar="FILE",
        help="Configuration file with a KubeProxyConfiguration, a UproxyConfiguration, or both. "
        "Flags and variables win over it. It is read again on SIGHUP.",
    ),
    option(
        "--write-config-to",
        kind=PathType("path", Path),
        metavar="FILE",
        help="Write the configuration that all options result in to a file, and exit.",
    ),
    option(
        "--hostname-override",
        kind=FlagType("name", str),
        default="",
        metavar="NAME",
        help="Name of this node in the cluster. Default: $NODE_NAME, or else the host name.",
    ),
    list_option(
        "--nodeport-addresses",
        kind=FlagType("list", syntax.parse_nodeport_addresses),
        help="Addresses on which NodePorts are served: CIDRs, primary, localhost or all. Default: "
        "all.",
    ),
    option(
        "--cluster-cidr",
        kind=FlagType("list", syntax.parse_cluster_cidr),
        default="",
        metavar="LIST",
        help="CIDR of the pod network, or one for each IP family. Clients in it count as pods of "
        "the cluster.",
    ),
    list_option(
        "--external-ip-cidrs",
        kind=FlagType("list", syntax.parse_networks),
        help="CIDRs from which Services may use externalIPs even if this node does not have the "
        "address.",
    ),
    option(
        "--claim-addresses",
        kind=choice("word", ("auto", "never")),
        default=_DEFAULTS.claim_addresses,
        show_default=True,
        metavar="[auto|never]",
        help="Whether to claim Service addresses that no interface of this node has. Needs "
        "CAP_NET_ADMIN.",
    ),
    option(
        "--preserve-client-ip",
        kind=choice("word", tuple(ClientIPMode)),
        default=_DEFAULTS.preserve_client_ip,
        show_default=True,
        metavar="[auto|local|never]",
        help="Which clients' own addresses pods see: those of clients from outside where "
        "externalTrafficPolicy is Local, and of this node's pods (auto), or only the former "
        "(local). Needs CAP_NET_ADMIN and nft. The annotation uproxy.dev/preserve-client-ip can be "
        "stricter for a Service.",
    ),
    option(
        "--io-uring",
        kind=choice("word", ("auto", "never")),
        default=_DEFAULTS.io_uring,
        show_default=True,
        metavar="[auto|never]",
        help="Whether workers use io_uring to relay traffic. Needs Linux 6.1 and a seccomp "
        "profile that allows it.",
    ),
    option(
        "--busy-poll",
        kind=choice("word", ("auto", "never")),
        default=_DEFAULTS.busy_poll,
        show_default=True,
        metavar="[auto|never]",
        help="Whether workers with io_uring stay awake for up to 0.1 ms between messages that "
        "follow each other closely. Takes effect only with several processors and no CPU limit.",
    ),
    option(
        "--strict-source-ranges",
        kind=FlagType("boolean", syntax.parse_boolean),
        is_flag=False,
        flag_value="true",
        default=False,
        metavar="[true|false]",
        help="Apply loadBalancerSourceRanges to NodePorts and externalIPs too, and refuse clients "
        "of an IP family for which there is no range.",
    ),
    *LOAD_BALANCER_OPTIONS,
    option(
        "--healthz-bind-address",
        kind=address(10256),
        default="0.0.0.0:10256",
        show_default=True,
        metavar="IP:PORT",
        help='Address that serves /healthz, /livez and /readyz; "" switches it off.',
    ),
    option(
        "--metrics-bind-address",
        kind=address(10249),
        default="127.0.0.1:10249",
        show_default=True,
        metavar="IP:PORT",
        help='Address that serves /metrics, the API and the status page; "" switches it off.',
    ),
    list_option(
        "--metrics-allowed-hosts",
        kind=FlagType("names", syntax.parse_host_names),
        help="Host names that requests to the metrics address may use besides IP addresses, "
        'localhost, and the names of this host and node; "*" allows all. Other names are refused '
        "to prevent DNS rebinding.",
    ),
    option(
        "--metrics-per-backend",
        kind=number("number", 0, syntax.MAX_METRICS_PER_BACKEND, "--metrics-per-backend 1000"),
        is_flag=False,
        flag_value="1000",
        default=_DEFAULTS.metrics_per_backend,
        metavar="[N]",
        help="Give up to N backends metrics of their own, with pod, node and zone: 1000 without a "
        "number. Each has about 25 time series. Default: 0, which means none.",
    ),
    option(
        "--bind-address-hard-fail",
        kind=FlagType("boolean", syntax.parse_boolean),
        is_flag=False,
        flag_value="true",
        default=False,
        metavar="[true|false]",
        help="Exit if the health or metrics address cannot be used, instead of trying again.",
    ),
    option(
        "--workers",
        kind=number("number", 1, syntax.MAX_WORKERS, "--workers 2"),
        default=default_workers,
        show_default="one per CPU, at most 4",
        metavar="N",
        help="Number of worker processes, which relay the traffic.",
    ),
    option(
        "--balancer",
        kind=choice("balancer", tuple(BalancerKind)),
        default=_DEFAULTS.balancer.value,
        show_default=True,
        metavar="[round-robin|random|least-connections]",
        help="How to choose a backend for Services without the annotation uproxy.dev/balancer.",
    ),
    option(
        "--max-flows",
        kind=number("number", 1, syntax.MAX_FLOWS, "--max-flows 65536"),
        default=_DEFAULTS.max_flows,
        show_default=True,
        metavar="N",
        help="Maximum number of simultaneous TCP connections and UDP flows, over all workers.",
    ),
    time_option(
        "--udp-timeout",
        _DEFAULTS.udp_timeout,
        "A UDP conversation ends after this time without a datagram.",
        POSITIVE_DURATION,
    ),
    time_option(
        "--tcp-idle-timeout",
        _DEFAULTS.tcp_idle_timeout,
        "A TCP flow ends after this time without traffic; 0 means never.",
    ),
    time_option(
        "--half-close-timeout",
        _DEFAULTS.half_close_timeout,
        "The same for a TCP flow that one side has closed.",
        POSITIVE_DURATION,
    ),
    time_option(
        "--drain-timeout",
        _DEFAULTS.drain_timeout,
        "Time that flows are given to end after uproxy is stopped or their Service is deleted.",
    ),
    time_option(
        "--min-sync-period",
        _DEFAULTS.min_sync_period,
        "Changes within this time are applied together; 0 applies each at once.",
    ),
    time_option(
        "--sync-period",
        _DEFAULTS.sync_period,
        "/healthz fails when a change has not been applied after twice this time.",
        POSITIVE_DURATION,
    ),
    option(
        "--state-dir",
        kind=PathType("path", Path),
        metavar="DIR",
        help="Directory for the last-known state of the cluster. Default: the state is not kept.",
    ),
    option(
        "--flow-log",
        kind=FlagType("path", str),
        default="",
        metavar="FILE",
        help="Write a line of JSON for each flow that has ended to a file, or to standard output "
        "(-). The file is opened again when it was moved, and on SIGHUP. Lines have the addresses "
        "of clients.",
    ),
    option(
        "--flow-log-every",
        kind=number("number", 0, syntax.MAX_EVERY, "--flow-log-every 100"),
        default=_DEFAULTS.flow_log_every,
        show_default=True,
        metavar="N",
        help="Write one of N flows that have ended well. Those that have not are always written; "
        "0 writes only these.",
    ),
    option(
        "--log-format",
        kind=choice("format", ("text", "json")),
        default=_DEFAULTS.log_format,
        show_default=True,
        metavar="[text|json]",
        help="Format of the log, which goes to stderr.",
    ),
    option(
        "verbosity",
        "-v",
        "--v",
        "--verbosity",
        kind=FlagType("number", _verbosity),
        is_flag=False,
        flag_value="1",
        default=0,
        metavar="[N]",
        help="Log details for debugging. N is a level from 0 (off) to 10, as in kube-proxy.",
    ),
)
