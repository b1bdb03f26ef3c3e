"""`uproxy demo`: pods, manifests and Services on loopback addresses, served as `run` would."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import click

from uproxy.cli.serving import CannotStart, run_to_the_end, serve, set_up_logging
from uproxy.cli.values import POSITIVE_DURATION
from uproxy.config import Address, Config
from uproxy.daemon import Daemon, StartError
from uproxy.demo import backends, cluster, tour
from uproxy.sources.reading import read_manifest

_WAY_OUT = "choose other ports with: uproxy demo --port-offset 1000"


@click.command("demo")
@click.option(
    "--port-offset",
    type=click.IntRange(-1023, 30000),
    default=0,
    metavar="N",
    help="Add N to every port, where the usual ones are taken.",
)
@click.option(
    "--exit-after",
    type=POSITIVE_DURATION,
    metavar="DURATION",
    help='End by itself, for example after "20s".',
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("-v", "--verbose", count=True, help="Log more.")
def command(port_offset: int, exit_after: float | None, workers: int, verbose: int) -> None:
    """Serve a small cluster on loopback addresses, without root and without Kubernetes.

    Starts a backend for each pod, writes manifests for Services of every kind, and serves them
    until Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="uproxy-demo-") as directory:
        manifests = cluster.write(Path(directory), port_offset)
        config = Config(
            manifests=(manifests,),
            node_name="demo-node",
            nodeport_addresses=("localhost",),
            healthz_address=Address("127.0.0.1", 10256 + port_offset),
            metrics_address=Address("127.0.0.1", 10249 + port_offset),
            workers=workers,
            drain_timeout=2.0,
            bind_address_hard_fail=True,
            verbosity=verbose,
        )
        set_up_logging(config)
        run_to_the_end(_demonstrate(config, exit_after))


async def _demonstrate(config: Config, exit_after: float | None) -> None:
    reading = read_manifest(str(config.manifests[0]), config.manifests[0].read_bytes())
    objects = [located.obj for located in reading.objects.values()]
    taken = cluster.first_taken(list(cluster.frontends(objects)))
    if taken is not None:
        raise CannotStart(f"{taken}; {_WAY_OUT}")
    try:
        async with backends.running(backends.pods(objects)):
            await serve(config, lambda daemon: _show(daemon, exit_after))
    except backends.BackendError as error:
        raise CannotStart(f"{error}; {_WAY_OUT}") from None
    except StartError as error:
        raise CannotStart(f"{error}; {_WAY_OUT}") from None


async def _show(daemon: Daemon, exit_after: float | None) -> None:
    status = daemon.status()
    click.echo()
    for line in tour.table(tour.rows(status)):
        click.echo(line)
    click.echo()
    for note in tour.notes(status):
        click.echo(note)
    metrics = daemon.config.metrics_address
    assert metrics is not None
    click.echo(f"\nManifests: {daemon.config.manifests[0]} (edit it, and see it followed)")
    click.echo(f"Status:    http://{metrics.host}:{metrics.port}/")
    click.echo(
        "Ctrl-C ends the demo.\n" if exit_after is None else f"Ends after {exit_after:g} s.\n"
    )
    if exit_after is not None:
        asyncio.get_running_loop().call_later(exit_after, os.kill, os.getpid(), signal.SIGTERM)
