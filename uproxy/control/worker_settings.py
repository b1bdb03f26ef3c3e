"""What each worker is told of the configuration."""

from __future__ import annotations

import sys

from uproxy.config.settings import Config
from uproxy.core.flows.capacity import share_of_flows
from uproxy.host import processors
from uproxy.net.messages import Settings


def worker_settings(config: Config, worker: int) -> Settings:
    """The settings of one worker. The flows that are allowed are divided among all of them."""
    return Settings(
        worker=worker,
        workers=config.workers,
        max_flows=share_of_flows(config.max_flows, config.workers, worker),
        udp_timeout=config.udp_timeout,
        tcp_idle_timeout=config.tcp_idle_timeout,
        half_close_timeout=config.half_close_timeout,
        flow_log_every=_log_every(config),
        busy_poll=config.busy_poll != "never" and processors.has_spare_processor(),
    )


def _log_every(config: Config) -> int:
    if not config.flow_log:
        return 0
    # No worker lives that long, so only bad ends are logged.
    return config.flow_log_every or sys.maxsize
