"""`uproxy completion`."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

_VARIABLE = "_UPROXY_COMPLETE"
"""The variable by which a shell asks for completions. click derives the same name."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, flags and names in your shell.

    Names of Services and namespaces come from the running uproxy.

    \b
      bash 4.4 or newer, in ~/.bashrc:
        eval "$(uproxy completion bash)"
      zsh, in ~/.zshrc after compinit:
        eval "$(uproxy completion zsh)"
      fish, in ~/.config/fish/config.fish:
        uproxy completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(ctx.find_root().command, {}, "uproxy", _VARIABLE)
    # That of bash would start another bash to find out its version, each time that one begins.
    click.echo(ShellComplete.source(made))
