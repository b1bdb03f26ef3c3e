"""`uproxy run`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from uproxy.cli.effective_config import config_options, resolve
from uproxy.cli.startup_progress import tell_while_busy
from uproxy.text import logs

if TYPE_CHECKING:
    from uproxy.control.daemon import Daemon

log = logging.getLogger(__name__)


@click.command("run")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **_: Any) -> None:
    """Serve until SIGTERM or Ctrl-C, then let flows end.

    Objects come from the cluster that this is a Pod of, or that a kubeconfig names; or from the
    files of --manifests: Services, EndpointSlices, Endpoints and Nodes, in YAML or JSON. Changes
    are followed.
    """
    config, warnings = resolve(ctx)
    if config.manifests and (config.kubeconfig or config.context):
        raise click.UsageError(
            "objects come either from --manifests or from a cluster (--kubeconfig, --context); "
            "leave one out",
            ctx,
        )
    logs.set_up(config.log_format, verbose=config.verbosity > 0)
    for warning in warnings:
        log.warning("%s", warning)
    with tell_while_busy("Python to load the program"):
        from uproxy.cli.serve import run_to_the_end, serve
    run_to_the_end(serve(config, _advise))


async def _advise(daemon: Daemon) -> None:
    """Once it serves: a start that fails is to be one line."""
    if not daemon.config.nodeport_addresses:
        log.info(
            "NodePorts are served on every address of this node; --nodeport-addresses narrows that"
        )
