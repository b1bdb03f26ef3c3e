"""The credentials of one user, as each request needs them: read, issued or renewed when due."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from uproxy.apiserver import client_library
from uproxy.apiserver.access import Access, ExecPlugin
from uproxy.apiserver.exec_plugin import IssuedCredential, PluginError, obtain_credential
from uproxy.core.brief import brief_name
from uproxy.text.files import error_reason, read_small

_MOST: Final = 1024 * 1024
"""Bytes of a file with a token. The largest header that servers accept has 1 MiB."""
_REST: Final = 5.0
"""Seconds between two runs of a plugin, unless its credentials were refused. A plugin that issues
credentials which have expired already is not run for each request."""


class CredentialError(Exception):
    """There are no credentials at present; the message is the reason, in one line."""


class Credentials:
    """Credentials that can be renewed are renewed when they expire, or after a 401."""

    def __init__(self, access: Access, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.access = access
        self.generation = 0
        """Counts the runs of the plugin. A 401 to credentials of an earlier generation says nothing
        about the present ones."""
        self._clock = clock
        self._outcome: IssuedCredential | PluginError | None = None
        """What the latest run of the plugin has brought."""
        self._refused = False
        self._ran_at = 0.0
        self._issuing = asyncio.Lock()
        self._loader: Any = None

    async def header(self) -> str:
        """The Authorization header to send now; "": none. Raises CredentialError."""
        access = self.access
        if access.plugin is not None:
            issued = await self._from_plugin()
            return f"Bearer {issued.token}" if issued.token else ""
        if access.auth_provider is not None:
            return await self._from_provider(access.auth_provider)
        if access.token_file is not None:
            return f"Bearer {_read_token(access.token_file, access.token)}"
        if access.token:
            return f"Bearer {access.token}"
        if access.username:
            pair = f"{access.username}:{access.password}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        return ""

    async def certificate(self) -> tuple[bytes, bytes] | None:
        """Client certificate and key as PEM, or None. Raises CredentialError."""
        access = self.access
        if access.plugin is not None:
            issued = await self._from_plugin()
            if issued.certificate:
                return issued.certificate, issued.key
        if access.certificate is None or access.key is None:
            return None
        return read_pem(access.certificate), read_pem(access.key)

    def refused(self, generation: int) -> None:
        """The server has answered 401 to the credentials of this generation. Unless there are newer
        ones by now, they are renewed before the next request."""
        self._loader = None
        if generation == self.generation:
            self._refused = True

    async def _from_plugin(self) -> IssuedCredential:
        assert self.access.plugin is not None
        generation = self.generation
        async with self._issuing:
            # Requests at the same time share one run and its failure: one that had to wait for the
            # lock finds another generation.
            if generation == self.generation and self._due():
                await self._run(self.access.plugin)
        if isinstance(self._outcome, PluginError):
            raise CredentialError(str(self._outcome)) from None
        assert self._outcome is not None
        return self._outcome

    def _due(self) -> bool:
        if self._refused or not isinstance(self._outcome, IssuedCredential):
            return True
        rested = self._clock() - self._ran_at >= _REST
        return rested and self._outcome.expired(datetime.now(UTC))

    async def _run(self, plugin: ExecPlugin) -> None:
        try:
            self._outcome = await obtain_credential(plugin)
        except PluginError as error:
            self._outcome = error
        self._refused, self._ran_at = False, self._clock()
        self.generation += 1

    async def _from_provider(self, provider: Mapping[str, Any]) -> str:
        """The library knows how to renew OpenID Connect tokens."""
        library = client_library.load()
        try:
            if self._loader is None:
                self._loader = library.KubeConfigLoader(_kubeconfig_for(provider))
            scratch = library.Configuration()
            await self._loader.load_and_set(scratch)
            header: str = scratch.api_key["BearerToken"]
        except Exception as error:
            # The library may raise anything, and its message may contain the token.
            name = brief_name(str(provider.get("name")))
            reason = f"no token was available ({type(error).__name__})"
            raise CredentialError(f"auth-provider {name}: {reason}") from None
        return header


def read_pem(pem: Path | bytes) -> bytes:
    """The certificates or the key themselves. Raises CredentialError."""
    if isinstance(pem, bytes):
        return pem
    try:
        return read_small(pem)
    except OSError as error:
        raise CredentialError(f"{pem}: {error_reason(error)}") from None


def _read_token(path: Path, otherwise: str) -> str:
    try:
        token = read_small(path, _MOST).decode().strip()
    except (OSError, ValueError) as error:
        if otherwise:
            return otherwise
        reason = error_reason(error) if isinstance(error, OSError) else "not text"
        raise CredentialError(f"{path}: {reason}") from None
    if not token and not otherwise:
        raise CredentialError(f"{path}: empty; a token is expected")
    return token or otherwise


def _kubeconfig_for(provider: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": "http://192.0.2.1"}}],
        "users": [{"name": "it", "user": {"auth-provider": dict(provider)}}],
    }
