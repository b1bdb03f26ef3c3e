"""Names of Services and namespaces for a shell that completes them, from the running uproxy.

A person waits for each answer, and a shell prints whatever goes wrong into the line that is being
typed. So a uproxy that does not answer soon, or not at all, has no names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import click
from click.shell_completion import CompletionItem

from uproxy.cli.status_client import DEFAULT_URL, NoStatus, fetch_service_names

_PATIENCE: Final = 1.0
"""Seconds for the whole answer; 10,000 names take 0.02 s."""
_NAME: Final = re.compile(
    r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
)
"""What Kubernetes allows. Anything else comes from no cluster, and a shell might execute it."""


def complete_services(
    ctx: click.Context, _: click.Parameter, text: str
) -> list[CompletionItem[str]]:
    """Services in each of the forms in which they can be named."""
    return _items(text, _forms(_names(ctx), ctx.params.get("namespace") or "", text))


def complete_namespaces(
    ctx: click.Context, _: click.Parameter, text: str
) -> list[CompletionItem[str]]:
    """Namespaces that have Services."""
    return _items(text, {each.partition("/")[0] for each in _names(ctx)})


def _names(ctx: click.Context) -> list[str]:
    try:
        found = fetch_service_names(ctx.params.get("url") or DEFAULT_URL, patience=_PATIENCE)
    except NoStatus:
        return []
    return [each for each in found if _NAME.fullmatch(each)]


def _forms(names: Iterable[str], namespace: str, text: str) -> Iterator[str]:
    """NAMESPACE/NAME; and the name alone, or after "svc/", where the namespace is given or is the
    one called "default"."""
    prefix, slash, _ = text.partition("/")
    resource = f"{prefix}/" if slash and prefix in ("svc", "service", "services") else ""
    for each in names:
        where, _, name = each.partition("/")
        if where == (namespace or "default"):
            yield f"{resource}{name}"
        if not namespace and not resource:
            yield each


def _items(text: str, found: Iterable[str]) -> list[CompletionItem[str]]:
    return [CompletionItem(each) for each in sorted(set(found)) if each.startswith(text)]
