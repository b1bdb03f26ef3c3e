"""The order of the nodes for a pool or an address, on which they agree without communication."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b


@lru_cache(maxsize=65536)
def score(key: str, node: str) -> int:
    """How well a node suits a key. The highest wins; if a node leaves, the order of the others
    stays (rendezvous hashing)."""
    return int.from_bytes(blake2b(f"{key}#{node}".encode(), digest_size=8).digest())
