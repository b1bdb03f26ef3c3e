"""`uproxy version`."""

from __future__ import annotations

import platform

import click

import uproxy


@click.command("version")
def command() -> None:
    """Print the versions of uproxy, Python and the kernel."""
    click.echo(f"uproxy {uproxy.__version__}")
    click.echo(f"Python {platform.python_version()}, {platform.system()} {platform.release()}")
