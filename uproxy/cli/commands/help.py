"""`uproxy help`."""

from __future__ import annotations

from typing import cast

import click
from click.shell_completion import CompletionItem


def _commands(ctx: click.Context, _: click.Parameter, text: str) -> list[CompletionItem[str]]:
    root = ctx.find_root()
    names = cast("click.Group", root.command).list_commands(root)
    return [CompletionItem(each) for each in names if each.startswith(text)]


@click.command("help")
@click.argument("name", metavar="[COMMAND]", required=False, shell_complete=_commands)
@click.pass_context
def command(ctx: click.Context, name: str | None) -> None:
    """Show what uproxy can do, or how to use one of its commands.

    "uproxy help status" prints the same as "uproxy status --help".
    """
    root = ctx.find_root()
    if name is None:
        click.echo(root.get_help())
        return
    _, found, _ = cast("click.Group", root.command).resolve_command(root, [name])
    assert found is not None
    with click.Context(found, info_name=name, parent=root) as described:
        click.echo(found.get_help(described))
