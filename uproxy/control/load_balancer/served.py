"""What those that announce addresses have to know of what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from uproxy.core.route import Frontend, Route


class Served(NamedTuple):
    """What this node serves, at the moment of the call."""

    routes: Callable[[], Mapping[Frontend, Route]]
    is_open: Callable[[Frontend], bool]
    has_failed: Callable[[Frontend], bool]
    """Whether it could not be opened, and is being tried again."""
    refusal: Callable[[], str]
    """Why nothing may be exported here, such as a missing privilege; "" if it may."""
    owned: Callable[[], bool]
    """Whether what this node exports is this process's own. Otherwise, another uproxy may run here,
    and nothing of its exports may be removed."""
    all_known: Callable[[], bool]
    """Whether all objects have been listed and served once. Nothing is withdrawn before that."""
