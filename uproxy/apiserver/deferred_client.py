"""Access to a cluster that worked before and is broken now: its kubeconfig is missing, half-written
or wrong.

Where a last-known state can be served, that is no reason not to start. The access is looked for
again with every request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import ServerAddress
from uproxy.apiserver.request import ApiServer, Request, Response
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.errors import SourceError


class DeferredClient:
    """An `ApiServer` that begins to work when `find` no longer raises SourceError."""

    def __init__(self, find: Callable[[], ApiServer], why: SourceError) -> None:
        self._no_access = Access(origin=str(why), server="not known yet")
        self._find = find
        self._client: ApiServer | None = None

    @property
    def access(self) -> Access:
        """As of the client, once there is one."""
        return self._client.access if self._client is not None else self._no_access

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        """None until there is a client."""
        return self._client.addresses if self._client is not None else ()

    def learn(self, addresses: Sequence[str]) -> bool:
        """Nothing is learned until there is a client. What the cluster says is repeated then."""
        return self._client is not None and self._client.learn(addresses)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.__aexit__()

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """Like `ApiClient.send`. Also raises ApiUnreachable while there is no access."""
        if self._client is None:
            try:
                self._client = self._find()
            except SourceError as error:
                raise ApiUnreachable(str(error)) from None
        return self._client.send(request)
