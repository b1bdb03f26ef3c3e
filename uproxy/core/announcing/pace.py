"""How often Leases are renewed, and how long nodes wait for each other (decision 0018)."""

from __future__ import annotations

from typing import Final

HEARTBEAT: Final = 0.5
"""Seconds after which `decide` is to be called at the latest, and lifetimes to be renewed."""
SOON: Final = 0.01
"""Seconds between two calls of `decide` for which nothing but time is the reason, at least."""
LIFETIME: Final = 3.0
"""Seconds for which the kernel keeps an address after the last heartbeat of its process. A restart
within 2 s finds it there. The kernel counts whole seconds, so there is nothing between 2 and 3."""
RENEWAL: Final = 1.0
"""Seconds between two renewals of a Lease, at least."""
RENEWALS_PER_SECOND: Final = 20
"""Of all announcers together. Up to as many of them renew once in a second, so that a fail-over
takes at most 4 s; more of them renew less often, so that the API server never has more to do."""
RENEWALS: Final = 3
"""How many renewals have to be missing before a node may be taken for dead."""
SLACK: Final = 1.5
"""Seconds for which a renewal may be overdue before this node doubts its own view. With the time
between renewals it is less than a Lease lasts: a node whose Lease the others see expire has come to
doubt before them."""
RETRY: Final = 0.5
"""Seconds after which a write that has failed is tried again."""
SETTLE: Final = 2.0
"""Seconds that a node which has just joined leaves addresses to others, which may be starting at
the same moment. Otherwise the first one to come up would get all of them, and keep them."""
STAND_IN: Final = 2.0
"""Seconds after which the next best node takes an address which the best one leaves alone."""
CLAIM: Final = 2.0
"""Seconds after which a claim that has not come back is given up."""
RECONSIDER: Final = 1.0
"""Seconds after which an address is claimed again that another node was about to take."""
PREFER: Final = 5.0
"""Seconds for which a preferred node has to be eligible before an address moves to it."""
RESTART: Final = 5.0
"""Seconds that are waited for a node whose Lease has expired, while the wire answers for its
address: its process is being restarted, or it is cut off from the API server only."""
UNKNOWN: Final = 2.0
"""Seconds that are waited if the wire cannot be asked: a restart takes as long."""


def renewal(announcers: int) -> float:
    """Seconds between two renewals of each Lease, with so many announcers."""
    return max(RENEWAL, announcers / RENEWALS_PER_SECOND)


def duration(every: float) -> float:
    """For how long a Lease is valid that is renewed so often."""
    return RENEWALS * every
