"""Time limits and pauses between this program and an API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uproxy.core.backoff import Backoff
from uproxy.sources.kubernetes.retry_schedule import Spacing

_BACKOFF: Final = Backoff(initial=1.6, maximum=30.0, jitter=0.75)
_SPACING: Final = Spacing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All in seconds."""

    watch_lifetime: float = 300.0
    """A watch is asked to last between this and twice as long (client-go's rule). The random part
    spreads the clients, which would otherwise all come back at once."""
    overtime: float = 30.0
    """How far past its lifetime a watch may last. Then the server is taken to be dead."""
    response_start: float = 30.0
    """A watch whose response has not begun by then is given up. A server sends the headers before
    it has any event to send. The time that an exec plugin takes to log in does not count."""
    silence: float = 90.0
    """How long a watch may receive nothing until it is replaced. The server sends a bookmark about
    once a minute, so silence means that the connection is dead."""
    initial_silence: float = 10.0
    """How long a watch may receive nothing before the bookmark that ends its initial events. Then
    the server is taken for one that ignores `sendInitialEvents`, and never sends that bookmark."""
    initial_list: float = 120.0
    """How long all initial events together may take, and each page of a list."""
    error_body: float = 10.0
    """How long to wait for the body of a response that reports an error."""
    healthy_after: float = 10.0
    """How long a watch has to last until earlier failures are forgotten."""
    shortest_watch: float = 1.0
    """A watch that the server ends sooner than this counts as failed. Otherwise a server that ends
    each watch at once would be asked a thousand times a second."""
    slices_first: float = 5.0
    """How long Services wait at most for EndpointSlices to be listed. Without the endpoints their
    ports would be opened only to refuse every connection."""
    missing: float = 60.0
    """How long until a kind that the cluster does not have is asked for again."""
    missing_again: float = 10.0
    """How long a kind that was there must be missing before its objects count as deleted."""
    backoff: Backoff = _BACKOFF
    """Pauses after lists and watches that had begun and then failed: 0.4 to 1.6 s at first."""
    spacing: Spacing = _SPACING
    """Pauses while no list or watch begins at all."""
