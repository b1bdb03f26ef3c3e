"""Log lines about what a sync has changed: one for each change, or one for many of them at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.flows.backend_reachability import Changes
from uproxy.core.route import Frontend, Route
from uproxy.core.routing.plan import Plan
from uproxy.core.routing.retries import Failure
from uproxy.net.listening import is_taken

log = logging.getLogger(__name__)

_MANY = 20
"""More changes than this in one sync are summed up, as those of the first list of a large
cluster."""


def log_plan(plan: Plan) -> None:
    """Log what was opened, resumed, paused and closed. Changes of endpoints alone are not
    logged."""
    events = [f"serving {_described(route)}" for route in plan.open if route.usable]
    events += [f"reserving {_described(route)}" for route in plan.open if not route.usable]
    events += [f"serving again {_described(route)}" for route in plan.resume]
    events += [f"refusing clients of {_described(route)}" for route in plan.pause]
    events += [f"no longer serving {frontend}" for frontend in plan.close]
    if len(events) > _MANY:
        counts = f"{len(plan.open)} frontends opened, {len(plan.close)} closed"
        log.info("%s, %d resumed, %d paused", counts, len(plan.resume), len(plan.pause))
    else:
        for event in events:
            log.info("%s", event)


def log_node(before: NodeFacts, after: NodeFacts) -> None:
    """Log what has changed about this node after everything was served once."""
    if before.known and not after.known:
        log.warning(
            "the Node %s was deleted; what was known of it counts until there is one again",
            after.name,
        )
    elif after.known and not before.known:
        log.info("the cluster has a Node %s now", after.name)
    if after.pod_cidrs != before.pod_cidrs:
        log.info(
            "the pods of this node are in %s now", " and ".join(after.pod_cidrs) or "no network"
        )


def log_failures(new: Mapping[Frontend, Failure], owners: Mapping[Frontend, Route]) -> None:
    """Log frontends that cannot be opened, when that is new."""
    absent = [each for each, failure in new.items() if failure.absent]
    # Ports that others have are told by `port_conflicts`, in one line for each of those.
    faults = {
        each: failure
        for each, failure in new.items()
        if not failure.absent and not is_taken(failure.reason)
    }
    if len(faults) > _MANY:
        first = next(iter(faults.values()))
        log.warning(
            "cannot serve %d frontends, the first of them because %s; retrying",
            len(faults),
            first.reason,
        )
    else:
        for frontend, failure in faults.items():
            owner = owners[frontend].owner
            log.warning("cannot serve %s for %s: %s; retrying", frontend, owner, failure.reason)
    if absent:
        log.info("%d frontends have addresses that are not on this node", len(absent))


def log_recovered(frontends: Sequence[Frontend]) -> None:
    """Log frontends that could be opened after they had failed."""
    if len(frontends) > _MANY:
        log.info("%d frontends that had failed are open now", len(frontends))
    else:
        for frontend in frontends:
            log.info("%s is open now, after it had failed", frontend)


def log_health_checks(before: Mapping[ObjectName, str], now: Mapping[ObjectName, str]) -> None:
    """Log health check node ports that cannot be opened, when that is new."""
    for name, reason in now.items():
        if before.get(name) != reason and not is_taken(reason):
            log.warning("health check of %s: %s; retrying", name, reason)
    for name in before.keys() - now.keys():
        log.info("health check of %s works now", name)


def log_reachability(changes: Changes) -> None:
    """Log Service ports of which no backend answers, and those of which one answers again."""
    if len(changes.degraded) > _MANY:
        log.warning(
            "%d Service ports have backends that do not answer; see: uproxy status",
            len(changes.degraded),
        )
    else:
        for name, port in changes.degraded.items():
            service = f"{name.namespace}/{name.name}"
            log.warning("%s: %s; see: uproxy explain %s", name, port.reason, service)
    if len(changes.recovered) > _MANY:
        log.info(
            "backends of %d Service ports answer again, have changed, or had no client for "
            "5 minutes",
            len(changes.recovered),
        )
    else:
        for name in sorted(changes.recovered):
            log.info(
                "%s: backends answer again, have changed, or had no client for 5 minutes", name
            )


def _described(route: Route) -> str:
    if not route.usable:
        return f"{route.frontend} for {route.owner}: {route.reason or 'no usable endpoints'}"
    count = len(route.backends or route.local_backends or ())
    backends = "1 backend" if count == 1 else f"{count} backends"
    return f"{route.frontend} for {route.owner}: {backends}"
