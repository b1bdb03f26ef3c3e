"""Access to a cluster that worked before and is broken now: a kubeconfig gone, half-written, wrong.

Where a last-known state can be served, that is no reason not to start; access is looked for again
with every request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.response import Response
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.errors import SourceError


class DeferredClient:
    """An `ApiServer` that begins to work when `find` no longer raises SourceError."""

    def __init__(self, find: Callable[[], ApiClient], why: SourceError) -> None:
        self.access = Access(origin=f"nowhere yet: {why}", server="not known")
        self._find = find
        self._api: ApiClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._api is not None:
            await self._api.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        answer_timeout: float = 60.0,
        read_timeout: float = 60.0,
    ) -> AsyncIterator[Response]:
        """As `ApiClient.request`. Raises ApiUnreachable, also while there is no access."""
        async with self._found().request(
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            answer_timeout=answer_timeout,
            read_timeout=read_timeout,
        ) as answer:
            yield answer

    def _found(self) -> ApiClient:
        if self._api is None:
            try:
                self._api = self._find()
            except SourceError as error:
                raise ApiUnreachable(str(error)) from None
        return self._api
