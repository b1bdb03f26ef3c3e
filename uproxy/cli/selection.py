"""The arguments and flags by which people select Services, the same for all commands."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from uproxy.cli.output.services import not_found, services_of
from uproxy.cli.service_completion import complete_namespaces, complete_services
from uproxy.cli.status_client import fetch
from uproxy.core.cluster.label_syntax import parse_selector
from uproxy.core.printable import printable
from uproxy.core.report.status_format import Filter, StatusView

FORMS: Final = "[NAME|svc/NAME|NAMESPACE/NAME]"
_NAME: Final = re.compile(r"(?:([^/\s]+)/)?([^/\s]+)")
_RESOURCES: Final = frozenset(("svc", "service", "services"))
"""Words that kubectl takes for Services before a slash."""

service_argument: Final = click.argument(
    "service", metavar=FORMS, required=False, shell_complete=complete_services
)
namespace_option: Final = click.option(
    "-n",
    "--namespace",
    default="",
    metavar="NAME",
    shell_complete=complete_namespaces,
    help="Show this namespace only.",
)
all_namespaces_option: Final = click.option(
    "-A", "--all-namespaces", "everywhere", is_flag=True, help="Show all namespaces, the default."
)


def _checked_selector(ctx: click.Context, param: click.Parameter, text: str) -> str:
    try:
        parse_selector(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return text


selector_option: Final = click.option(
    "-l",
    "--selector",
    "labels",
    default="",
    metavar="SELECTOR",
    callback=_checked_selector,
    help="Show Services with these labels, like app=web,tier in (a,b),!canary.",
)


class NotFound(click.ClickException):
    """What is asked for does not exist; one line on stderr, exit code 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def select(
    ctx: click.Context,
    service: str | None,
    namespace: str,
    *,
    everywhere: bool = False,
    **more: Any,
) -> Filter:
    """What the flags and the argument select. Raises click.UsageError if they contradict each
    other. `more` are further fields of the filter."""
    if everywhere and namespace:
        raise click.UsageError("-A and -n contradict each other; leave one out", ctx)
    if service is None:
        return Filter(namespace=namespace, **more)
    found = _NAME.fullmatch(service)
    if found is None:
        raise click.UsageError(
            f'"{service}" is not the name of a Service; give one like default/web', ctx
        )
    before = "" if found[1] in _RESOURCES else found[1] or ""
    if namespace and before and before != namespace:
        raise click.UsageError(
            f"{service} and -n {namespace} name different namespaces; leave one out", ctx
        )
    return Filter(namespace=before or namespace, service=found[2], **more)


def require(url: str, wanted: Filter, found: StatusView) -> None:
    """Raise NotFound if a status has nothing of what is wanted because there is no such namespace
    or Service. Raises NoStatus."""
    if (wanted.namespace or wanted.service) and not services_of(found):
        reason = not_found(fetch(url), wanted)
        if reason:
            raise NotFound(reason)
