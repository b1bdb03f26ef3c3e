"""What the facts about a cluster mean for uproxy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from uproxy.cli.doctor.cluster_facts import Cluster
from uproxy.cli.doctor.findings import Finding, Result, few, fit_to_print
from uproxy.core.allocation.node_addresses import EXCLUDED

_MOST_APART: Final = 5.0
"""Seconds. Clocks that are kept by NTP differ by less than one."""
_SYNCHRONISE: Final = "synchronise it: timedatectl set-ntp true, or: chronyc makestep"


def check_cluster(facts: Cluster, *, assigns: bool) -> Iterator[Finding]:
    """The findings of all checks. `assigns`: whether uproxy is to hand out addresses of load
    balancers."""
    for each in (clock(facts), excluded(facts, assigns), other_controllers(facts, assigns)):
        yield fit_to_print(each)


def clock(facts: Cluster) -> Finding:
    if facts.ahead is None:
        return Finding("clock", Result.OK, "the API server does not say what time it is")
    seconds = abs(facts.ahead)
    if seconds <= _MOST_APART:
        return Finding("clock", Result.OK, "agrees with that of the API server")
    way = "ahead of" if facts.ahead > 0 else "behind"
    text = (
        f"this machine's clock is {seconds:,.0f} s {way} that of the API server: certificates and "
        "tokens may be refused, and times in logs and Events mislead"
    )
    return Finding("clock", Result.WARN, text, _SYNCHRONISE)


def clock_of_certificates(reason: str, now: float) -> Iterator[Finding]:
    """What a refused certificate says about the clock, from the reason why no API server could be
    asked; nothing if that has another cause."""
    here = f"by this machine's clock, {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC"
    if "is not yet valid" in reason:
        text = f"the certificate of the API server is not valid yet {here}"
        yield Finding("clock", Result.FAIL, text, f"if it is late, {_SYNCHRONISE}")
    elif "has expired" in reason:
        text = f"the certificate of the API server has expired {here}"
        advice = f"renew the certificate; if the clock is early, {_SYNCHRONISE}"
        yield Finding("clock", Result.FAIL, text, advice)


def excluded(facts: Cluster, assigns: bool) -> Finding:
    name = "label of nodes"
    if facts.nodes is None:
        return Finding(name, Result.OK, "not looked at, as listing Nodes is not allowed")
    if not facts.all_excluded:
        return Finding(name, Result.OK, "there are nodes for load balancers")
    which = "the only node has" if facts.nodes == 1 else f"all {facts.nodes:,} nodes have"
    text = f"{which} the label {EXCLUDED}"
    if not assigns:
        return Finding(name, Result.OK, f"{text}, which matters only with --lb and --lb-pool")
    text += ": no address is announced, and none of a node is handed out"
    return Finding(name, Result.WARN, text, f"kubectl label nodes NAME {EXCLUDED}-")


def other_controllers(facts: Cluster, assigns: bool) -> Finding:
    name = "other controllers"
    found = facts.controllers
    if found is None:
        text = "not looked for, as listing DaemonSets and Deployments is not allowed"
        return Finding(name, Result.OK, text)
    if not found:
        return Finding(name, Result.OK, "no other program is known to hand out addresses")
    if not assigns:
        text = f"uproxy serves the addresses that {few(found)} may hand out"
        return Finding(name, Result.OK, text)
    text = f"{few(found)} may hand out addresses too: uproxy leaves Services alone that have one"
    advice = "stop it (docs/load-balancer.md says how), or set spec.loadBalancerClass of Services"
    return Finding(name, Result.WARN, text, advice)
