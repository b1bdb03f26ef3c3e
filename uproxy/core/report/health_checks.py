"""What healthCheckNodePorts answer while a sync is being carried out.

A load balancer must not send clients to a node where a listener is about to be closed. So an answer
may turn to failure before the sync, and to success only after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.routing.service_routes import HealthCheck


def with_lower_counts(
    now: Mapping[ObjectName, HealthCheck], wanted: Mapping[ObjectName, HealthCheck]
) -> dict[ObjectName, HealthCheck]:
    """The health checks that are served `now`, each with the lower of its two counts: that of now,
    and the wanted one, which is 0 if the health check is no longer wanted."""
    return {
        name: replace(
            check,
            counts={
                family: min(count, wanted[name].counts.get(family, 0)) if name in wanted else 0
                for family, count in check.counts.items()
            },
        )
        for name, check in now.items()
    }
