"""`uproxy run`."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import click

from uproxy.cli.effective_config import resolve
from uproxy.cli.flags import config_options
from uproxy.cli.startup_progress import log_while_busy
from uproxy.cli.variables import unknown_variables
from uproxy.text import logs

if TYPE_CHECKING:
    from uproxy.control.daemon import Daemon

log = logging.getLogger(__name__)


@click.command("run")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **_: Any) -> None:
    """Serve Services until SIGTERM or Ctrl-C, then give open flows time to end.

    Services are read from a cluster: the one that uproxy runs in as a Pod, or the one that a
    kubeconfig names. With --manifests they are read from files: Services, EndpointSlices,
    Endpoints and Nodes, in YAML or JSON. Changes take effect while uproxy runs.
    """
    config, warnings = resolve(ctx)
    if config.manifests and (config.kubeconfig or config.context or config.apiserver_address):
        raise click.UsageError(
            "objects come either from --manifests or from a cluster (--kubeconfig, --context, "
            "--apiserver-address); leave one out",
            ctx,
        )
    logs.set_up(config.log_format, verbose=config.verbosity > 0)
    for warning in (*warnings, *unknown_variables(os.environ, ctx.command)):
        log.warning("%s", warning)
    with log_while_busy("Python to load the program"):
        from uproxy.cli.serve import run_async, serve
    run_async(serve(config, _advise))


async def _advise(daemon: Daemon) -> None:
    """Called once uproxy serves, so that a start that fails logs one line only."""
    if not daemon.config.nodeport_addresses:
        log.info(
            "NodePorts are served on every address of this node; to choose some, use "
            "--nodeport-addresses"
        )
