"""Whether a watch that stays silent means that the API server has lost what it once had. Pure.

A server whose data were restored from a backup sends neither changes nor bookmarks until it has
reached the version from which a watch was resumed, which can take hours. So everything is listed
again. But a server need not send bookmarks at all, and one that has just started sends none until
something has changed. If nothing changes there, every node would list everything every three
minutes, for ever.
"""

from __future__ import annotations

from typing import Final

_MOST: Final = 40
"""Silent watches after which everything is listed in any case: about an hour."""


class Suspicion:
    """Of one resource. Each list for which silence was the reason makes silence less suspicious,
    until a bookmark shows that this server sends them."""

    def __init__(self) -> None:
        self._silent = 0
        """Watches in a row that were resumed and stayed silent."""
        self._patience = 1

    def bookmark_came(self) -> None:
        """A watch has received a bookmark after its list."""
        self._silent, self._patience = 0, 1

    def stayed_silent(self) -> bool:
        """A watch was resumed, and nothing has come. Returns whether to list everything again."""
        self._silent += 1
        if self._silent < self._patience:
            return False
        self._silent, self._patience = 0, min(2 * self._patience, _MOST)
        return True
