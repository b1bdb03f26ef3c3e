"""`uproxy demo`: pods, manifests and Services on loopback addresses, served as `run` would.

With --backends the manifests are those of the user, and only the pods are the demo's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from uproxy.cli.flag_types import POSITIVE_DURATION, number
from uproxy.cli.output.columns import Paint, grouped, paragraph, terminal
from uproxy.cli.serve import CannotStart, run_async, serve
from uproxy.cli.status_client import DEFAULT_URL
from uproxy.config import syntax
from uproxy.config.settings import Address, Config
from uproxy.control import manifests
from uproxy.control.daemon import Daemon
from uproxy.control.startup import StartError
from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Node, Object
from uproxy.core.cluster.state import ClusterState
from uproxy.core.errors import SourceError
from uproxy.core.printable import printable
from uproxy.core.protocols import TCP
from uproxy.core.report.findings import new_lines
from uproxy.core.report.status import Status
from uproxy.core.route import Frontend
from uproxy.demo import backends, cluster, instructions
from uproxy.sources.manifests.survey import Survey, survey
from uproxy.text import logs

_OTHER_PORTS = "choose other ports, for example with: uproxy demo --port-offset 1000"
_NODE = "demo-node"
_WIDE = 110
"""Characters of a line of explanations where there is no terminal."""
_WITH_ENDPOINTS = (Endpoints, EndpointSlice)
log = logging.getLogger(__name__)


@click.command("demo")
@click.option(
    "--backends",
    "given",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="Serve the manifests at PATH instead of the demo's own, with a backend for each of their "
    "endpoints on an address of this machine. Can be given several times.",
)
@click.option(
    "--port-offset",
    type=number("number", -1023, 30000, "--port-offset 1000"),
    default=0,
    metavar="N",
    help="Add N to every port, if the usual ones are taken; with --backends only to uproxy's own, "
    "for status and health.",
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
def command(
    given: tuple[Path, ...],
    port_offset: int,
    exit_after: float | None,
    workers: int,
    verbose: int,
) -> None:
    """Serve a small cluster on loopback addresses, without root and without Kubernetes.

    The demo starts a backend for each pod, writes manifests for Services of every kind, and
    serves them until Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="uproxy-demo-") as directory:
        try:
            paths = given or (cluster.write(Path(directory), port_offset),)
            read = survey(paths)
        except SourceError as error:
            raise CannotStart(str(error)) from None
        config = Config(
            manifests=paths,
            node_name=_node_name(read.catalog.objects()) if given else _NODE,
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
        if not verbose:  # The table says more.
            logging.getLogger("uproxy").setLevel(logging.ERROR if given else logging.WARNING)
            logging.getLogger(manifests.__name__).setLevel(logging.ERROR)
        try:
            run_async(_Demo(config, read, exit_after, own=not given).run())
        except CannotStart as error:
            raise CannotStart(f"{error.message}; {_OTHER_PORTS}") from None


def _node_name(objects: Sequence[Object]) -> str:
    """The only Node among the objects is this one, so that its endpoints are local."""
    nodes = [each.metadata.name for each in objects if isinstance(each, Node)]
    return nodes[0] if len(nodes) == 1 else syntax.node_name("", os.environ, socket.gethostname())


class _Demo:
    def __init__(
        self, config: Config, read: Survey, exit_after: float | None, *, own: bool
    ) -> None:
        """`own`: whether the manifests are those of the demo."""
        self._config = config
        self._objects = read.catalog.objects()
        self._findings = read.findings
        self._exit_after = exit_after
        self._own = own
        self._backends = backends.Backends()
        self._follower: asyncio.Task[None] | None = None

    async def run(self) -> None:
        frontends = cluster.frontends(self._objects) if self._own else ()
        taken = cluster.first_taken([*frontends, *_own_ports(self._config)])
        if taken is not None:
            raise StartError(taken)
        async with self._backends, asyncio.TaskGroup() as tasks:
            await self._backends.run(backends.pods(self._objects))
            for pod, missing in self._backends.missing.items() if self._own else ():
                raise StartError(_unusable(pod, missing))
            await serve(self._config, partial(self._show, tasks))
            if self._follower is not None:
                self._follower.cancel()

    async def _show(self, tasks: asyncio.TaskGroup, daemon: Daemon) -> None:
        self._follower = tasks.create_task(self._follow(daemon.state))
        width, paint = terminal()
        for line in self._instructions(daemon.status.now(), width, paint):
            click.echo(line)
        if self._exit_after is None:
            click.echo("Ctrl-C ends the demo.")
        else:
            click.echo(f"The demo ends after {self._exit_after:g} s, or with Ctrl-C.")
            loop = asyncio.get_running_loop()
            loop.call_later(self._exit_after, os.kill, os.getpid(), signal.SIGTERM)
        # From now on the log shows what happens, above all when manifests are edited.
        if not self._config.verbosity:
            logging.getLogger("uproxy").setLevel(logging.INFO)

    async def _follow(self, state: ClusterState) -> None:
        """Start and stop backends as the manifests change."""
        changed = asyncio.Event()
        state.observe(lambda kind, name: changed.set() if kind in _WITH_ENDPOINTS else None)
        while True:
            before = self._backends.missing.keys()
            await self._backends.run(backends.pods(state.all_objects()))
            missing = self._backends.missing
            new = {pod: missing[pod] for pod in missing.keys() - before}
            for line in instructions.without_backends(new):
                log.warning("%s", printable(line))
            await changed.wait()
            # What was wrong from the start is in the table.
            logging.getLogger(manifests.__name__).setLevel(logging.NOTSET)
            changed.clear()

    def _instructions(self, status: Status, width: int | None, paint: Paint) -> Iterator[str]:
        rows, more = instructions.first_rows(status)
        cells = [tuple(map(printable, row)) for row in rows]
        if rows:
            yield from grouped(instructions.HEAD, cells, width=width, paint=paint)
            if more:
                yield f"... and {more:,} more; uproxy status shows all"
            yield ""
        for line in self._remarks(status):
            yield from paragraph(printable(line), width=width, indent="  ")
        yield ""
        suggestions = instructions.suggestions(status)
        if suggestions:
            yield "Try:"
            yield from map(printable, instructions.command_lines(suggestions))
            yield ""
        if self._own:
            for line in instructions.notes(status):
                yield from paragraph(line, width=width or _WIDE)
            yield ""
        yield from map(printable, self._where_to_look(status))
        yield ""

    def _remarks(self, status: Status) -> Iterator[str]:
        """What is not as one may expect it, or wrong."""
        if not (status.frontends or status.health_checks):
            yield "No Service of these manifests can be served."
        yield from new_lines((), self._findings)
        yield from instructions.not_served(status)
        yield from instructions.without_backends(self._backends.missing)

    def _where_to_look(self, status: Status) -> Iterator[str]:
        metrics = self._config.metrics_address
        assert metrics is not None
        url = f"http://{metrics.host}:{metrics.port}"
        program = "uproxy" if shutil.which("uproxy") else os.path.relpath(sys.argv[0])
        option = "" if url == DEFAULT_URL else f" --url {url}"
        yield f"Look:  {program} status{option}"
        service = instructions.service_to_explain(status)
        if service:
            yield f"       {program} explain {service}{option}"
        yield f"       {url}/ in a browser"
        paths = ", ".join(map(str, self._config.manifests))
        yield f"Edit:  {paths} (changes take effect at once)"


def _unusable(pod: backends.Pod, missing: backends.Missing) -> str:
    reason = "is taken" if missing.error == errno.EADDRINUSE else f"({missing.reason})"
    return f"{pod.protocol} port {pod.port} on {pod.address} {reason}"


def _own_ports(config: Config) -> Iterator[tuple[Frontend, str]]:
    for purpose, address in (
        ("status and metrics", config.metrics_address),
        ("health", config.healthz_address),
    ):
        if address is not None:
            yield Frontend(TCP, address.host, address.port), purpose
