"""`uproxy explain`."""

from __future__ import annotations

import re
from typing import Final

import click
import msgspec

from uproxy.cli.output.columns import terminal
from uproxy.cli.output.explain import explanation, is_known, not_found
from uproxy.cli.status_client import fetch, fetch_both, url_option
from uproxy.core.printable import printable
from uproxy.core.report.status_format import Filter

_NAME: Final = re.compile(r"(?:([^/\s]+)/)?([^/\s]+)")


@click.command("explain")
@click.argument("service", metavar="[NAMESPACE/]NAME")
@url_option
@click.option(
    "-n", "--namespace", metavar="NAME", help='Namespace of the Service. Default: "default".'
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Output format."
)
@click.pass_context
def command(
    ctx: click.Context, /, service: str, url: str, namespace: str | None, output: str
) -> None:
    """Explain how a Service is served, or why it is not and what to do about it.

    Exit code: 0 on success, 1 if there is no such Service, 2 if no uproxy answers.
    """
    wanted = _wanted(ctx, service, namespace)
    full_name = f"{wanted.namespace}/{wanted.service}"
    status, body = fetch_both(url, wanted)
    if not is_known(status, full_name):
        click.echo(printable(f"uproxy explain: {not_found(fetch(url), full_name)}"), err=True)
        ctx.exit(1)
    if output == "json":
        click.echo(msgspec.json.format(body, indent=2))
    else:
        width, paint = terminal()
        click.echo("\n".join(explanation(status, full_name, width=width, paint=paint)))


def _wanted(ctx: click.Context, text: str, namespace: str | None) -> Filter:
    """From "NAMESPACE/NAME", or a name and --namespace. Raises click.UsageError."""
    found = _NAME.fullmatch(text)
    if found is None:
        raise click.UsageError(
            f'"{text}" is not the name of a Service; give one like default/web', ctx
        )
    if namespace and found[1] and found[1] != namespace:
        raise click.UsageError(
            f"{text} and -n {namespace} name different namespaces; leave one out", ctx
        )
    return Filter(namespace=found[1] or namespace or "default", service=found[2])
