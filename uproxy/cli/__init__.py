"""The command line. Each command is a module that is imported when the command is called."""

from __future__ import annotations

import sys

if sys.argv[0] == "-m" and not sys.flags.safe_path:
    # `python -m uproxy.cli` would import from the current directory, which anyone may own.
    del sys.path[0]

import difflib
import errno
import importlib
import os

import click

from uproxy import __version__
from uproxy.cli import kubectl_habits
from uproxy.cli.early_hangup import expect_hangups
from uproxy.core.printable import printable
from uproxy.host.announced_addresses import hold_over

_COMMANDS = {
    "run": "Serve the Services of a cluster or of manifests.",
    "demo": "Serve a small cluster on loopback addresses.",
    "status": "Show what a running uproxy serves.",
    "top": "Show flows and bytes of a running uproxy, live.",
    "flows": "Show flows that have ended, and how.",
    "explain": "Explain how a Service is served, or why it is not.",
    "check": "Check manifests before they are served.",
    "doctor": "Check what this machine allows.",
    "cleanup": "Remove what a killed uproxy has left behind in the kernel.",
    "completion": "Print a script that completes commands and names in your shell.",
    "help": "Show what uproxy can do, or how to use a command.",
    "version": "Print the versions of uproxy, Python and the kernel.",
}


class _LazyGroup(click.Group):
    """Imports only the command that is called: `uproxy version` loads no HTTP server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"uproxy.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in kubectl_habits.VERBS and not ctx.resilient_parsing:
            raise click.UsageError(kubectl_habits.advice(args), ctx)
        if name not in _COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(_unknown_command(name), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, _COMMANDS, n=1, cutoff=0.5)
    near += [each for each in _COMMANDS if each.startswith(name)]
    advice = f'did you mean "{near[0]}"?' if near else f"the commands are {', '.join(_COMMANDS)}"
    return f'no command "{name}"; {advice}'


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s", help="Show the version.")
def uproxy() -> None:
    """Make every Kubernetes Service reachable on this node, from userspace."""


def _open_standard_streams() -> None:
    """Replace the standard streams that were closed when uproxy was started. Otherwise a socket
    would get the number of one of them, and would receive what a library writes to stderr."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main() -> None:
    """Entry point. Bad input gives one line on stderr and exit code 2."""
    _open_standard_streams()
    if sys.argv[1:2] == ["run"]:
        expect_hangups()
        # Addresses that a killed predecessor announced last for 3 s after its last renewal, and the
        # imports of `run` take a part of that: 0.4 s. This is 0.035 s after the process started.
        hold_over()
    try:
        # click returns what a command has passed to ctx.exit().
        code = uproxy.main(standalone_mode=False, prog_name="uproxy")
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "uproxy"
        # click lists choices in lines of their own.
        message = " ".join(error.format_message().split())
        click.echo(printable(f"{where}: {message}"), err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(printable(f"uproxy: {error.format_message()}"), err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # The output may go to a file on a disk that is full. Other errors are handled elsewhere.
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python tries once more when it ends.
        click.echo("uproxy: the output cannot be written: no space left on device", err=True)
        sys.exit(2)
