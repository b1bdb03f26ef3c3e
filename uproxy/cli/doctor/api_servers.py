"""At which addresses the API server answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import Candidates, ServerAddress
from uproxy.apiserver.discovery import KnownAddresses, find_access, find_addresses
from uproxy.apiserver.failover_client import FailoverClient
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.errors import SourceError


def ask_api_servers(given: Sequence[str], kubelet_kubeconfig: Path) -> Sequence[ServerAddress]:
    """All addresses, with what they answer. There are none unless this is a Pod or addresses are
    `given`.

    This takes five seconds at most. Raises SourceError where there is no access.
    """
    known = KnownAddresses(given, kubelet_kubeconfig)
    access = find_access()
    if access is None:
        advice = "name a kubeconfig in KUBECONFIG, or run this in a Pod of uproxy"
        raise SourceError(f"there are no credentials with which to ask it; {advice}")
    candidates = find_addresses(access, known)
    if candidates is None:
        return ()
    return asyncio.run(_ask(access, candidates))


async def _ask(access: Access, candidates: Candidates) -> Sequence[ServerAddress]:
    try:
        async with FailoverClient(access, candidates) as api:
            return await api.check_all()
    except ApiUnreachable as error:
        raise SourceError(f"{access.origin}: {error}") from None
