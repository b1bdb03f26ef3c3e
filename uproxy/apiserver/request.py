"""A request to an API server, and what sources and Events need of a client that sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import ServerAddress

MAX_BODY: Final = 128 * 1024 * 1024
"""Bytes of a response that is read as a whole, decompressed. A page of a list has 500 objects, of
50 KiB each at most in practice: slices of a hundred endpoints."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. The time-outs are in seconds."""

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: Any = None
    """Plain data, which is sent as JSON."""
    content_type: str = "application/json"
    answer_timeout: float = 60.0
    """The response has to begin so soon after the credentials were obtained."""
    read_timeout: float = 60.0
    """No more may pass between two parts of the response."""


class Response(Protocol):
    """A response, which may still be arriving."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names are not case-sensitive."""

    async def read(self, most: int = MAX_BODY) -> bytes:
        """The rest of the body. Raises ApiUnreachable where it ends too early, or is larger."""

    async def chunk(self) -> bytes:
        """The next bytes, b"" at the end. Raises ApiUnreachable where it ends too early."""

    def keep_alive(self) -> None:
        """Have the kernel probe a connection over which nothing may come for minutes."""


class ApiServer(Protocol):
    """An API server that requests can be sent to, while the context is open."""

    @property
    def access(self) -> Access:
        """How it is reached at present."""

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        """All addresses at which it may be reached, in the order of preference."""

    def learn(self, addresses: Sequence[str]) -> bool:
        """The cluster says that its API servers are at these addresses, "HOST:PORT". Returns
        whether `addresses` has changed because of that."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """The response, to be read while its context is open. Raises ApiUnreachable."""
