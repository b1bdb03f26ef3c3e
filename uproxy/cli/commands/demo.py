"""`uproxy demo`: pods, manifests and Services on loopback addresses, served as `run` would."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from uproxy.cli.flag_types import POSITIVE_DURATION, number
from uproxy.cli.serve import CannotStart, run_async, serve
from uproxy.cli.status_client import DEFAULT_URL
from uproxy.config import syntax
from uproxy.config.settings import Address, Config
from uproxy.control.daemon import Daemon
from uproxy.control.startup import StartError
from uproxy.core.cluster.decode import from_data, kind_of
from uproxy.core.cluster.objects import Object
from uproxy.core.protocols import TCP
from uproxy.core.report.status import Status
from uproxy.core.route import Frontend
from uproxy.demo import backends, cluster, instructions
from uproxy.text import logs
from uproxy.text.document import Malformed
from uproxy.text.yaml_text import yaml_documents

_OTHER_PORTS = "choose other ports, for example with: uproxy demo --port-offset 1000"


@click.command("demo")
@click.option(
    "--port-offset",
    type=number("number", -1023, 30000, "--port-offset 1000"),
    default=0,
    metavar="N",
    help="Add N to every port, if the usual ones are taken.",
)
@click.option(
    "--exit-after",
    type=POSITIVE_DURATION,
    metavar="DURATION",
    help="Stop after this time, for example 20s.",
)
@click.option(
    "--workers",
    type=number("number", 1, syntax.MAX_WORKERS, "--workers 2"),
    default=2,
    show_default=True,
    metavar="N",
    help="Number of worker processes, which relay the traffic.",
)
@click.option("-v", "--verbose", count=True, help="Log more details.")
def command(port_offset: int, exit_after: float | None, workers: int, verbose: int) -> None:
    """Serve a small cluster on loopback addresses, without root and without Kubernetes.

    The demo starts a backend for each pod, writes manifests for Services of every kind, and
    serves them until Ctrl-C.
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
            preserve_client_ip="never",
            lb_mode="pools",
            lb_pools=(cluster.POOL,),
            announce="never",  # No other machine can reach a loopback address.
            # Another uproxy may run here, and the demo must not release its claims.
            claim_addresses="never",
            bind_address_hard_fail=True,
            verbosity=verbose,
        )
        logs.set_up(config.log_format, verbose=config.verbosity > 0)
        if not verbose:
            logging.getLogger("uproxy").setLevel(logging.WARNING)  # The table says more.
        try:
            run_async(_demonstrate(config, exit_after))
        except CannotStart as error:
            raise CannotStart(f"{error.message}; {_OTHER_PORTS}") from None


async def _demonstrate(config: Config, exit_after: float | None) -> None:
    objects = list(_objects(config.manifests[0].read_text()))
    taken = cluster.first_taken([*cluster.frontends(objects), *_own_ports(config)])
    if taken is not None:
        raise StartError(taken)
    try:
        async with backends.running(backends.pods(objects)):
            await serve(config, lambda daemon: _show(daemon, exit_after))
    except backends.BackendError as error:
        raise StartError(str(error)) from None


def _objects(manifests: str) -> Iterator[Object]:
    """The objects in manifests of our own, which have no errors."""
    for document in yaml_documents(manifests):
        if isinstance(document, Malformed):
            raise document
        kind = kind_of(document.data)
        if kind is not None:
            yield from_data(document.data, kind)


def _own_ports(config: Config) -> Iterator[tuple[Frontend, str]]:
    for purpose, address in (
        ("status and metrics", config.metrics_address),
        ("health", config.healthz_address),
    ):
        if address is not None:
            yield Frontend(TCP, address.host, address.port), purpose


async def _show(daemon: Daemon, exit_after: float | None) -> None:
    metrics = daemon.config.metrics_address
    assert metrics is not None
    url = f"http://{metrics.host}:{metrics.port}"
    for line in _instructions(daemon.status.now(), daemon.config.manifests[0], url):
        click.echo(line)
    if exit_after is None:
        click.echo("Ctrl-C ends the demo.")
    else:
        click.echo(f"The demo ends after {exit_after:g} s, or with Ctrl-C.")
        asyncio.get_running_loop().call_later(exit_after, os.kill, os.getpid(), signal.SIGTERM)
    # From now on the log shows what happens, above all when manifests are edited.
    if not daemon.config.verbosity:
        logging.getLogger("uproxy").setLevel(logging.INFO)


def _instructions(status: Status, manifests: Path, url: str) -> Iterator[str]:
    yield from instructions.table(instructions.rows(status))
    yield ""
    yield from instructions.not_served(status)
    yield ""
    yield "Try:"
    yield from instructions.command_lines(instructions.suggestions(status))
    yield ""
    yield from instructions.notes(status)
    yield ""
    program = "uproxy" if shutil.which("uproxy") else os.path.relpath(sys.argv[0])
    option = "" if url == DEFAULT_URL else f" --url {url}"
    yield f"Look:  {program} status{option}"
    yield f"       {program} explain default/svc-local{option}"
    yield f"       {url}/ in a browser"
    yield f"Edit:  {manifests} (changes take effect at once)"
    yield ""
