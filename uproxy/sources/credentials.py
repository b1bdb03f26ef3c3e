"""Credentials: where they are found, and how requests get them, fresh each time."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from uproxy.sources import client_library
from uproxy.sources.access import Access
from uproxy.sources.errors import SourceError
from uproxy.sources.exec_plugin import Issued, PluginError, issue
from uproxy.sources.kubeconfig import read_kubeconfig
from uproxy.sources.tree import reason_of

log = logging.getLogger(__name__)

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a Pod finds its token and the cluster's certificates."""


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
            path.read_bytes()
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

    def __init__(self, access: Access) -> None:
        self.access = access
        self._issued: Issued | None = None
        self._issuing = asyncio.Lock()
        """Requests at the same time share one run of the plugin."""
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

    def refused(self, header: str) -> None:
        """The server has answered 401 to this Authorization header: if it is still the one that
        would be sent, get another one before the next request."""
        self._loader = None
        if self._issued is not None and header in ("", f"Bearer {self._issued.token}"):
            self._issued = None

    async def _from_plugin(self) -> Issued:
        assert self.access.plugin is not None
        async with self._issuing:
            if self._issued is None or self._issued.expired(datetime.now(UTC)):
                try:
                    self._issued = await issue(self.access.plugin)
                except PluginError as error:
                    raise CredentialError(str(error)) from None
            return self._issued

    async def _from_provider(self, provider: Mapping[str, Any]) -> str:
        """The library knows how to renew OpenID Connect tokens."""
        library = client_library.load()
        try:
            if self._loader is None:
                self._loader = library.KubeConfigLoader(_kubeconfig_for(provider))
            scratch = library.Configuration()
            await self._loader.load_and_set(scratch)
            header: str = scratch.api_key["BearerToken"]
        except Exception as error:  # Of any kind: it is not said which.
            log.debug("auth-provider", exc_info=True)
            reason = str(error) or type(error).__name__
            raise CredentialError(f"auth-provider {provider.get('name')}: {reason}") from None
        return header


def read_pem(pem: Path | bytes) -> bytes:
    """The certificates or the key themselves. Raises CredentialError."""
    if isinstance(pem, bytes):
        return pem
    try:
        return pem.read_bytes()
    except OSError as error:
        raise CredentialError(f"{pem}: {reason_of(error)}") from None


def _read_token(path: Path, otherwise: str) -> str:
    try:
        token = path.read_text().strip()
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
