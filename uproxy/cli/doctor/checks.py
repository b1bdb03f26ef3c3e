"""All checks of a machine: what its facts mean for uproxy, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from uproxy.apiserver.candidates import ServerAddress
from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result, fit_to_print
from uproxy.cli.doctor.io_uring import io_uring
from uproxy.cli.doctor.limits import Load, descriptors, inotify
from uproxy.cli.doctor.network import accept_queues, backlog, ipv6, node_ports, rp_filter, time_wait
from uproxy.cli.doctor.other_programs import other_proxy
from uproxy.cli.doctor.pods import bridge_filter, bridges, client_addresses
from uproxy.cli.doctor.privileges import claims, low_ports, nft, transparent
from uproxy.cli.doctor.runtime import (
    cluster_library,
    epoll,
    pipes,
    python,
    reuse_port,
    splice,
    uvloop,
)

_CHECKS: Final[tuple[Callable[[Machine], Finding], ...]] = (
    python,
    uvloop,
    cluster_library,
    epoll,
    reuse_port,
    splice,
    io_uring,
    pipes,
    ipv6,
    low_ports,
    claims,
    transparent,
    nft,
    bridges,
    bridge_filter,
    client_addresses,
    rp_filter,
    backlog,
    accept_queues,
    node_ports,
    time_wait,
    inotify,
    other_proxy,
)


def check(machine: Machine, load: Load) -> Iterator[Finding]:
    """The findings of all checks, the most fundamental ones first."""
    for one in _CHECKS:
        yield fit_to_print(one(machine))
    yield descriptors(machine, load)


def api_servers(addresses: Sequence[ServerAddress]) -> Iterator[Finding]:
    """Whether the API server answers at one of its addresses; nothing if there are none."""
    silent = "; ".join(
        f"{each.server} ({each.origin}): {each.reason}" for each in addresses if each.reason
    )
    answering = [each for each in addresses if not each.reason]
    if not addresses:
        return
    if not answering:
        advice = "give an address that works without a service proxy: --apiserver-address HOST:PORT"
        finding = Finding("API server", Result.FAIL, f"does not answer: {silent}", advice)
    else:
        text = f"answers at {answering[0].server}, from {answering[0].origin}"
        result = Result.OK if not addresses[0].reason else Result.WARN
        finding = Finding("API server", result, f"{text}; not at {silent}" if silent else text)
    yield fit_to_print(finding)
