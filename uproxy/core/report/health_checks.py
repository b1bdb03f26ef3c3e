"""What to answer to load balancers while a change is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.routing.service_routes import HealthCheck


def with_lower_counts(
    now: Mapping[ObjectName, HealthCheck], wanted: Mapping[ObjectName, HealthCheck]
) -> dict[ObjectName, HealthCheck]:
    """The current health checks, with lower counts where fewer endpoints are left."""
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
