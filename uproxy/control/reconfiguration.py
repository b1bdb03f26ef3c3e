"""Puts another configuration into effect while the program runs."""

from __future__ import annotations

from functools import partial

from uproxy.config.reload import Reload
from uproxy.control.daemon import Daemon
from uproxy.control.worker_settings import worker_settings


def reconfigure(daemon: Daemon, reload: Reload) -> None:
    """Give each part what is new to it. Flows go on; those that have been idle for too long by a
    shorter timeout end."""
    config = reload.config
    daemon.config = daemon.status.config = config
    daemon.status.restart_for = [each.field for each in reload.waiting]
    daemon.status.health.sync_period = config.sync_period
    daemon.listeners.grace = config.drain_timeout
    daemon.reconciler.min_sync_period = config.min_sync_period
    daemon.workers.set_settings(partial(worker_settings, config))
    if daemon.load_balancer is not None:
        daemon.load_balancer.set_pools(config.lb_pools)
    daemon.facts_changed()
