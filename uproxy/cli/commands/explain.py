"""`uproxy explain`."""

from __future__ import annotations

import click
import msgspec

from uproxy.cli.output.columns import terminal
from uproxy.cli.output.explain import explanation
from uproxy.cli.selection import FORMS, require, select
from uproxy.cli.service_completion import complete_namespaces, complete_services
from uproxy.cli.status_client import fetch_both, url_option


@click.command("explain")
@click.argument("service", metavar=FORMS.strip("[]"), shell_complete=complete_services)
@url_option
@click.option(
    "-n",
    "--namespace",
    default="",
    metavar="NAME",
    shell_complete=complete_namespaces,
    help='Namespace of the Service. Default: "default".',
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Output format."
)
@click.pass_context
def command(ctx: click.Context, /, service: str, url: str, namespace: str, output: str) -> None:
    """Explain how a Service is served, or why it is not and what to do about it.

    Exit code: 0 on success, 1 if there is no such Service, 2 if no uproxy answers.
    """
    wanted = select(ctx, service, namespace)
    wanted = wanted._replace(namespace=wanted.namespace or "default", backends="1")
    status, body = fetch_both(url, wanted)
    require(url, wanted, status)
    if output == "json":
        click.echo(msgspec.json.format(body, indent=2))
    else:
        width, paint = terminal()
        full_name = f"{wanted.namespace}/{wanted.service}"
        click.echo("\n".join(explanation(status, full_name, width=width, paint=paint)))
