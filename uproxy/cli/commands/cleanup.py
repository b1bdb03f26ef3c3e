"""`uproxy cleanup`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final

import click

from uproxy.host.claim_routes import remove_claims
from uproxy.host.client_addresses import remove_client_address_rules


@click.command("cleanup")
def command() -> None:
    """Remove what uproxy has left in the kernel: claimed addresses, and the rules that show
    clients' addresses to pods.

    A uproxy that ends by itself leaves nothing behind. What a killed one has left, the next one
    takes over; this command is for when there will be no next one. Stop uproxy first.
    """
    for removed, remove in _LEFT:
        try:
            names = remove()
        except OSError as error:
            raise click.ClickException(_explain(removed, error)) from None
        click.echo(f"{removed}: {len(names)} removed")
        for name in names:
            click.echo(f"  {name}")


def _explain(what: str, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"{what} cannot be removed without CAP_NET_ADMIN; try as root"
    return f"{what} cannot be removed: {error.strerror}"


_LEFT: Final[tuple[tuple[str, Callable[[], Sequence[str]]], ...]] = (
    ("claimed addresses", remove_claims),
    ("rules for clients' addresses", remove_client_address_rules),
)
"""What there may be, and what removes it and returns the names; raises OSError."""
