"""`uproxy doctor`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from uproxy.cli.doctor.checks import api_servers, check
from uproxy.cli.doctor.facts import examine
from uproxy.cli.doctor.findings import Finding, Result, failed, fit_to_print
from uproxy.cli.doctor.limits import Load
from uproxy.cli.doctor.load_balancer import check_load_balancer
from uproxy.cli.doctor.load_balancer_facts import examine_load_balancer
from uproxy.cli.flag_types import number
from uproxy.cli.flags import apiserver_address, default_workers, kubelet_kubeconfig
from uproxy.cli.load_balancer_flags import lb_pool
from uproxy.cli.output.columns import Paint, columns, terminal
from uproxy.config import syntax
from uproxy.config.settings import Config
from uproxy.core.allocation.pool_syntax import PoolRanges
from uproxy.core.errors import SourceError

_HEAD: Final = ("CHECK", "RESULT", "FOUND")


@click.command("doctor")
@click.option(
    "--max-flows",
    type=number("number", 1, syntax.MAX_FLOWS, "--max-flows 65536"),
    default=Config().max_flows,
    show_default=True,
    metavar="N",
    help="Check for this limit of flows, as given to uproxy run.",
)
@click.option(
    "--workers",
    type=number("number", 1, syntax.MAX_WORKERS, "--workers 2"),
    default=default_workers,
    show_default="one per CPU, at most 4",
    metavar="N",
    help="Check for this number of workers, as given to uproxy run.",
)
@apiserver_address
@kubelet_kubeconfig
@lb_pool
@click.option(
    "--metallb-namespace",
    metavar="NAME",
    help="Check the IPAddressPools and L2Advertisements of the cluster, as uproxy would read those "
    "of this namespace.",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format."
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    max_flows: int,
    workers: int,
    apiserver_address: tuple[str, ...],
    kubelet_kubeconfig: Path,
    lb_pool: tuple[PoolRanges, ...],
    metallb_namespace: str | None,
    output: str,
) -> None:
    """Check what this machine allows, and say what to do about what it does not.

    Nothing is changed. The result depends on the user who calls the command, so call it as the
    user that uproxy will run as.

    Exit code: 0 if uproxy can work here, 1 if it cannot.
    """
    balancer = examine_load_balancer(lb_pool)
    assigns = balancer is not None or metallb_namespace is not None
    findings = [
        *check(examine(), Load(max_flows, workers)),
        *(check_load_balancer(balancer) if balancer is not None else ()),
        *_metallb(metallb_namespace),
        *_api_servers(apiserver_address, kubelet_kubeconfig),
        *_cluster(apiserver_address, kubelet_kubeconfig, assigns=assigns),
    ]
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(findings), indent=2))
    else:
        width, paint = terminal()
        click.echo("\n".join(report(findings, width=width, paint=paint)))
    if failed(findings):
        ctx.exit(1)


def _metallb(namespace: str | None) -> Iterator[Finding]:
    if namespace is None:
        return
    from uproxy.cli.doctor.metallb import ask_metallb, check_metallb

    try:
        yield check_metallb(ask_metallb(namespace), namespace)
    except SourceError as error:
        text = f"cannot be listed: {error}"
        yield fit_to_print(Finding("MetalLB's objects", Result.WARN, text))


def _api_servers(given: Sequence[str], kubelet_kubeconfig: Path) -> Iterator[Finding]:
    if not (given or "KUBERNETES_SERVICE_HOST" in os.environ):
        # A kubeconfig alone says where its server is, and kubectl tells whether it answers.
        return
    from uproxy.cli.doctor.api_servers import ask_api_servers

    try:
        yield from api_servers(ask_api_servers(given, kubelet_kubeconfig))
    except SourceError as error:
        yield Finding("API server", Result.FAIL, str(error))


def _cluster(given: Sequence[str], kubelet_kubeconfig: Path, *, assigns: bool) -> Iterator[Finding]:
    """Nothing without a cluster: ~/.kube/config alone may be that of any cluster."""
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    if not (given or in_pod or os.environ.get("KUBECONFIG")):
        return
    from uproxy.cli.doctor.cluster import check_cluster, clock_of_certificates
    from uproxy.cli.doctor.cluster_facts import ask_cluster

    try:
        yield from check_cluster(ask_cluster(given, kubelet_kubeconfig), assigns=assigns)
    except SourceError as error:
        yield from clock_of_certificates(str(error), time.time())
        if not (given or in_pod):  # Otherwise there is a finding about it already.
            text = f"cannot be asked: {error}"
            yield fit_to_print(Finding("cluster", Result.WARN, text, "is it the right KUBECONFIG?"))


def report(findings: Sequence[Finding], *, width: int | None, paint: Paint) -> Iterator[str]:
    """Lines of text: a row for each finding, with the advice below it, and a summary."""
    rows = []
    for each in findings:
        rows.append((each.check, each.result.value, each.text))
        if each.advice:
            rows.append(("", "", f"-> {each.advice}"))
    yield from columns(_HEAD, rows, width=width, paint=paint)
    yield ""
    yield _summary(findings)


def _summary(findings: Sequence[Finding]) -> str:
    warnings = sum(each.result is Result.WARN for each in findings)
    if failed(findings):
        return "uproxy cannot work here."
    if warnings:
        return f"uproxy works here; warnings: {warnings}."
    return "uproxy works here."
