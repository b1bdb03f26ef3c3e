"""Puts the load balancer together, as the settings want it."""

from __future__ import annotations

from uproxy.config.settings import Config
from uproxy.control.load_balancer.load_balancer import LoadBalancer
from uproxy.control.load_balancer.part import Part
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.cluster.state import ClusterState


def new_load_balancer(
    config: Config, *, state: ClusterState, supervisor: TaskSupervisor
) -> LoadBalancer | None:
    """None where Services get no addresses from this program."""
    if config.lb_mode == "never":
        return None
    parts: list[Part] = []
    return LoadBalancer(parts, state, supervisor)
