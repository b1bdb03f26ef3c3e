"""`uproxy cleanup`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final

import click

from uproxy.host.announced_addresses import remove_announced_addresses
from uproxy.host.claim_routes import remove_claims
from uproxy.host.client_addresses import remove_client_address_rules
from uproxy.host.export_routes import remove_exports


@click.command("cleanup")
def command() -> None:
    """Remove what a killed uproxy has left behind in the kernel: claimed and announced
    addresses, routes that export them, and the rules that show clients' addresses to pods.

    A uproxy that stops properly leaves nothing behind, and what a killed one has left is taken
    over by the next one. Use this command if there will be no next one. Stop uproxy first.
    """
    for removed, remove in _LEFTOVERS:
        try:
            names = remove()
        except OSError as error:
            raise click.ClickException(_explain(removed, error)) from None
        click.echo(f"{removed}: {len(names)} removed")
        for name in names:
            click.echo(f"  {name}")


def _explain(what: str, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"{what} cannot be removed without CAP_NET_ADMIN; run this command as root"
    advice = "; stop it first" if error.errno == errno.EBUSY else ""
    return f"{what} cannot be removed: {error.strerror}{advice}"


_LEFTOVERS: Final[tuple[tuple[str, Callable[[], Sequence[str]]], ...]] = (
    ("exported routes", remove_exports),
    ("claimed addresses", remove_claims),
    ("announced addresses", remove_announced_addresses),
    ("rules for clients' addresses", remove_client_address_rules),
)
"""What may be left, and the function that removes it and returns the names; raises OSError."""
