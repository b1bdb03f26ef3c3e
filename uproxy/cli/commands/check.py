"""`uproxy check`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from uproxy.cli.effective_config import resolve
from uproxy.cli.flags import config_options
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.findings import Report, lines, report
from uproxy.cli.variables import unknown_variables
from uproxy.config.settings import Config
from uproxy.core.errors import SourceError
from uproxy.core.printable import printable, printable_json
from uproxy.core.protocols import TCP
from uproxy.core.route import Frontend

if TYPE_CHECKING:
    from uproxy.sources.manifests.survey import Survey

_STDIN: Final = Path("-")
_SHOWN: Final = frozenset(
    {
        "config",
        "external_ip_cidrs",
        "hostname_override",
        "lb",
        "lb_pool",
        "nodeport_addresses",
        "service_proxy_name",
    }
)
"""Options of `uproxy run` that decide most about what is served. The help shows only these."""


class _FewInHelp(click.Command):
    """A command whose help leaves most of the options of `uproxy run` out."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        for param in self.params:
            if isinstance(param, click.Option) and param.envvar and param.name not in _SHOWN:
                param.hidden = True
        return super().get_params(ctx)


@click.command("check", cls=_FewInHelp)
@click.argument("paths", nargs=-1, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Output format."
)
@config_options
@click.pass_context
def command(
    ctx: click.Context, /, paths: tuple[Path, ...], strict: bool, output: str, **_: Any
) -> None:
    """Check manifests as uproxy run would read them, without serving anything.

    Each PATH is a file, a directory, or - for standard input. An error is something that the
    manifests ask for and that cannot be served; a warning is something that is probably not meant.
    All options of uproxy run are understood, as they decide what is served; the most important
    ones are listed here.

    Exit code: 0 if all is well, 1 if there are errors, 2 if something cannot be read.
    """
    config, warnings = resolve(ctx)
    for warning in (*warnings, *unknown_variables(os.environ, ctx.command)):
        click.echo(printable(f"{ctx.command_path}: {warning}"), err=True)
    paths += config.manifests
    if not paths:
        raise click.UsageError("give the PATH of a file or directory with manifests", ctx)
    found, readable = _checked(replace(config, manifests=paths), ctx)
    if output == "json":
        text = msgspec.json.format(msgspec.json.encode(found), indent=2)
        click.echo(printable_json(text))
    else:
        width, paint = terminal()
        click.echo("\n".join(lines(found, width=width, paint=paint)))
    if not readable:
        ctx.exit(2)
    if found.summary.errors or (strict and found.summary.warnings):
        ctx.exit(1)


def _checked(config: Config, ctx: click.Context) -> tuple[Report, bool]:
    """The report, and whether everything could be read."""
    from uproxy.control.dry_run import dry_run
    from uproxy.core.report.service_findings import service_findings
    from uproxy.sources.manifests.file import MAX_FILE
    from uproxy.sources.manifests.source import NO_FILE
    from uproxy.sources.manifests.survey import survey

    # What parts of uproxy would log is said by the findings.
    logging.getLogger("uproxy").addHandler(logging.NullHandler())
    stdin = sys.stdin.buffer.read(MAX_FILE + 1) if _STDIN in config.manifests else None
    try:
        read: Survey = survey([each for each in config.manifests if each != _STDIN], stdin)
    except SourceError as error:
        pipe = "; for standard input, give -" if NO_FILE in str(error) else ""
        raise click.UsageError(f"{error}{pipe}", ctx) from None
    state, table = asyncio.run(dry_run(config, read.catalog.objects()))
    found = [*read.findings]
    for each in service_findings(state, table, read.catalog.locate, _own_ports(config)):
        found += each
    return report(found, files=read.files, kinds=read.kinds, ignored=read.ignored), read.readable


def _own_ports(config: Config) -> Mapping[Frontend, str]:
    own = {
        "--healthz-bind-address": config.healthz_address,
        "--metrics-bind-address": config.metrics_address,
    }
    return {Frontend(TCP, *each): option for option, each in own.items() if each is not None}
