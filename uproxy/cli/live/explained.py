"""What `uproxy explain` says about the selected row."""

from __future__ import annotations

from uproxy.cli.live.listing import Explanation
from uproxy.cli.output.columns import terminal
from uproxy.cli.output.explain import explanation
from uproxy.cli.status_client import fetch
from uproxy.core.report.status_format import Filter


def explain(url: str, service: str) -> Explanation:
    """Ask uproxy about a Service, NAMESPACE/NAME. Raises NoStatus."""
    namespace, _, name = service.partition("/")
    status = fetch(url, Filter(namespace=namespace, service=name, backends="1"))
    _, paint = terminal()
    return lambda width: list(explanation(status, service, width=width, paint=paint))
