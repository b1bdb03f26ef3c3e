"""Credentials: where they are found, and how requests get them, fresh each time."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from uproxy.apiserver import client_library
from uproxy.apiserver.access import Access, ExecPlugin
from uproxy.apiserver.exec_plugin import IssuedCredential, PluginError, obtain_credential
from uproxy.apiserver.kubeconfig import read_kubeconfig
from uproxy.core.brief import brief_name
from uproxy.core.errors import SourceError
from uproxy.text.files import read_small, reason_of

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a Pod finds its token and the cluster's certificates."""

_MOST: Final = 1024 * 1024
"""Bytes of a file with a token; the largest header that servers take has 1 MiB."""
_REST: Final = 5.0
"""Seconds between two runs of a plugin whose credentials have not been refused."""


class CredentialError(Exception):
    """There is nothing to show to the server at present; the reason in one line."""


def find_access(
    kubeconfig: Path | None = None,
    context: str = "",
    *,
    environ: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access | None:
    """A named kubeconfig or context; else this Pod's own service account; else $KUBECONFIG or
    ~/.kube/config.

    None: there is none of these. Raises SourceError where there is one that cannot be used.
    """
    if kubeconfig is not None:
        return read_kubeconfig([kubeconfig], context)
    inside = None if context else _in_cluster(environ, service_account)
    if inside is not None:
        return inside
    if environ.get("KUBECONFIG"):
        names = [each for each in environ["KUBECONFIG"].split(os.pathsep) if each]
        return read_kubeconfig([Path(each).expanduser() for each in names], context)
    home = environ.get("HOME")
    default = Path(home, ".kube", "config") if home else None
    if default is not None and (context or default.exists()):
        return read_kubeconfig([default], context)
    return None


def _in_cluster(environ: Mapping[str, str], directory: Path) -> Access | None:
    host, port = (environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    token, authority = directory / "token", directory / "ca.crt"
    if not (host and port and token.exists()):
        return None
    for path in (token, authority):
        try:
            read_small(path)
        except OSError as error:
            raise SourceError(f"service account: {path}: {reason_of(error)}") from None
    return Access(
        origin="service account",
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        authority=authority,
        token_file=token,
    )


class Credentials:
    """Of one user; what can be renewed is renewed when it is due, or when it was refused."""

    def __init__(self, access: Access, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.access = access
        self.generation = 0
        """Changes whenever a plugin has run; which one a request showed decides whether it was
        refused with what would be shown again."""
        self._clock = clock
        self._outcome: IssuedCredential | PluginError | None = None
        """Of the latest run of the plugin."""
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
        """The server has answered 401 to what was current then: unless there is something newer
        by now, get it before the next request."""
        self._loader = None
        if generation == self.generation:
            self._refused = True

    async def _from_plugin(self) -> IssuedCredential:
        assert self.access.plugin is not None
        generation = self.generation
        async with self._issuing:
            # Requests at the same time share one run, and its failure.
            if generation == self.generation and self._due():
                await self._run(self.access.plugin)
        if isinstance(self._outcome, PluginError):
            raise CredentialError(str(self._outcome)) from None
        assert self._outcome is not None
        return self._outcome

    def _due(self) -> bool:
        if self._refused or not isinstance(self._outcome, IssuedCredential):
            return True
        # A plugin that issues what has expired already is not run for each request.
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
        except Exception as error:  # Of any kind, and with any words: an answer, or a token.
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
        raise CredentialError(f"{pem}: {reason_of(error)}") from None


def _read_token(path: Path, otherwise: str) -> str:
    try:
        token = read_small(path, _MOST).decode().strip()
    except (OSError, ValueError) as error:
        if otherwise:
            return otherwise
        reason = reason_of(error) if isinstance(error, OSError) else "not text"
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
