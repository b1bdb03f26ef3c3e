"""`uproxy run`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uproxy.cli.effective_config import resolve
from uproxy.cli.first_lines import first_lines
from uproxy.cli.flags import config_options
from uproxy.cli.startup_progress import log_while_busy
from uproxy.cli.variables import unknown_variables
from uproxy.config.as_file import as_file
from uproxy.config.settings import Config
from uproxy.core.printable import printable
from uproxy.host.systemd import notify_address
from uproxy.text import logs
from uproxy.text.yaml_output import write_yaml

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
    logs.set_up(config.log_format, verbose=config.verbosity > 0)
    for warning in (*warnings, *unknown_variables(os.environ, ctx.command)):
        log.warning("%s", warning)
    if ctx.params["write_config_to"] is not None:
        _write(config, ctx.params["write_config_to"], ctx)
        return
    with log_while_busy("Python to load the program"):
        from uproxy.cli.reloading import Reloading
        from uproxy.cli.serve import run_async, serve
    reload = Reloading(ctx) if _reloads(ctx) else None
    run_async(serve(config, _advise, when_started=_introduce, reload=reload))


def _reloads(ctx: click.Context) -> bool:
    """Whether SIGHUP means to reload: there is a file to read or to open again, or systemd has
    started the program, and `systemctl reload` sends this signal."""
    reads = ctx.params["config"] is not None or ctx.params["flow_log"] not in ("", "-")
    return reads or notify_address(os.environ) is not None


def _write(config: Config, path: Path, ctx: click.Context) -> None:
    """Write into the file that there is, if any: it may be /dev/stdout."""
    try:
        path.write_text(write_yaml(as_file(config)))
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.UsageError(f"--write-config-to: {path}: {reason}", ctx) from None
    except UnicodeEncodeError as error:
        name = printable(error.object[:200])
        raise click.UsageError(
            f'--write-config-to: "{name}" is not UTF-8, so YAML cannot contain it; rename the file',
            ctx,
        ) from None
    log.info("the configuration is in %s", path)


def _introduce(daemon: Daemon) -> None:
    access = daemon.kubernetes.api.access if daemon.kubernetes is not None else None
    listening = any(each.name == "metrics" and each.bound for each in daemon.servers)
    for line in first_lines(daemon.config, access, listening=listening):
        log.info("%s", line)


async def _advise(daemon: Daemon) -> None:
    """Called once uproxy serves, so that a start that fails logs one line only."""
    if not daemon.config.nodeport_addresses:
        log.info(
            "NodePorts are served on every address of this node; to choose some, use "
            "--nodeport-addresses"
        )
