"""Reads the configuration file again when uproxy is asked to, with SIGHUP, and opens the flow log
again."""

from __future__ import annotations

import logging
from typing import Final

import click

from uproxy.cli.effective_config import resolve
from uproxy.config.reload import Reload, reload
from uproxy.control.daemon import Daemon
from uproxy.control.reconfiguration import reconfigure
from uproxy.text import logs

log = logging.getLogger(__name__)

_PATIENCE: Final = 0.5
"""Seconds to wait for a file that is a pipe. Nothing else is done in that time, and /livez does
not answer."""


class Reloading:
    """Called with the running program. Flags and variables are those of the start, and still win
    over the file."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx

    def __call__(self, daemon: Daemon) -> None:
        """Put into effect what can change while uproxy runs. If the file cannot be used, nothing
        changes."""
        daemon.ended_flows.reopen_log()
        path = self._ctx.params["config"]
        if path is None:
            if self._ctx.params["flow_log"] in ("", "-"):
                log.info("nothing to reload: there is no --config, and manifests are followed")
            return
        try:
            wanted, warnings = resolve(self._ctx, patience=_PATIENCE)
        except click.UsageError as error:
            log.error("the configuration stays as it is: %s", error.format_message())
            return
        found = reload(daemon.config, wanted)
        logs.set_level(verbose=found.config.verbosity > 0)
        reconfigure(daemon, found)
        for warning in warnings:
            log.warning("%s", warning)
        _report(found, str(path))


def _report(found: Reload, path: str) -> None:
    if not found.live and not found.waiting:
        log.info("%s was read again; it changes nothing", path)
    for change in found.live:
        log.info("%s: changed %s", path, change)
    for change in found.waiting:
        log.warning("%s: restart uproxy to change %s", path, change)
