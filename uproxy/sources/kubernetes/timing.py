"""How long things take between this program and an API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uproxy.core.backoff import Backoff
from uproxy.sources.kubernetes.retry_schedule import Spacing

_BACKOFF: Final = Backoff(initial=1.6, maximum=30.0, jitter=0.75)
_SPACING: Final = Spacing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds."""

    watch: float = 300.0
    """A watch is asked for anew after between this and twice as long (client-go's rule), so that
    many clients do not come at once."""
    grace: float = 30.0
    """The server gets so much longer to end it before it is taken for dead."""
    answer: float = 30.0
    """A watch that the server has not begun by then is given up; it begins before there is
    anything to say. What a plugin takes to log in does not count."""
    silence: float = 90.0
    """Nothing for so long, and a watch is replaced: the server sends a bookmark every minute."""
    quiet: float = 10.0
    """Nothing for so long before the initial events are complete: the server does not know that
    it should say when they are."""
    initial: float = 120.0
    """The initial events together may take so long, and so may each part of a list."""
    healthy: float = 10.0
    """A watch that has lasted so long makes earlier failures forgotten."""
    short: float = 1.0
    """One that the server ends sooner counts as failed: it would be asked for again a thousand
    times a second."""
    order: float = 5.0
    """So long Services wait for EndpointSlices to be listed first: without them they would be
    opened only to refuse."""
    backoff: Backoff = _BACKOFF
    """After lists and watches that have begun and then failed; 0.4 to 1.6 s at first."""
    spacing: Spacing = _SPACING
    """While none begins."""
