"""The command line: one module for each command, imported when it is called."""

from __future__ import annotations

import importlib
import sys

import click

_COMMANDS = {
    "run": "Serve the Services of a cluster, or of manifests.",
    "demo": "Serve a small cluster on loopback addresses.",
    "status": "Show what a running uproxy serves.",
    "top": "Watch flows and bytes of a running uproxy.",
    "explain": "Say how a Service is served, or why not.",
    "doctor": "Check what this machine allows.",
    "version": "Print the version.",
}


class _Lazy(click.Group):
    """Imports a command when it is asked for: `uproxy version` need not load an HTTP server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"uproxy.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def uproxy() -> None:
    """Every Kubernetes Service reachable on a node, from userspace."""


def main() -> None:
    """Entry point. Bad input is one line on stderr, and exit code 2."""
    try:
        uproxy.main(standalone_mode=False, prog_name="uproxy")
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "uproxy"
        click.echo(f"{where}: {error.format_message()}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"uproxy: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
