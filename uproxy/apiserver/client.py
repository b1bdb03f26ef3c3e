"""Sends authenticated requests to the API server, through kubernetes_asyncio's client."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from uproxy import __version__
from uproxy.apiserver import client_library
from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import ServerAddress
from uproxy.apiserver.credentials import CredentialError, Credentials, read_pem
from uproxy.apiserver.request import Request, Response
from uproxy.apiserver.response import StreamedResponse
from uproxy.apiserver.unreachable import as_unreachable
from uproxy.core.errors import SourceError
from uproxy.core.report.telemetry import RequestTelemetry

_CONNECT: Final = 10.0
"""Seconds to connect, TLS included."""


class _Identity(NamedTuple):
    """What a TLS context is made of. When it changes, another client is needed."""

    authority: bytes | None
    certificate: tuple[bytes, bytes] | None


class _NoRedirects:
    """The library's HTTP session, except that it does not follow redirects. An API server sends
    none, and the server that a redirect leads to would be sent our credentials and believed."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(self, **settings: Any) -> Any:
        return self._session.request(**settings, allow_redirects=False)

    async def close(self) -> None:
        await self._session.close()


class ApiClient:
    """An `ApiServer` that is reached through kubernetes_asyncio.

    Raises SourceError where certificates cannot be used at all.
    """

    def __init__(
        self,
        access: Access,
        *,
        relaxed_x509: bool = False,
        requests: RequestTelemetry | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """`requests`: where what is sent is counted. `credentials`: those of the same user that
        other clients use, too."""
        self.access = access
        self._requests = requests or RequestTelemetry()
        self._relaxed_x509 = relaxed_x509
        self._credentials = credentials or Credentials(access)
        self._library = client_library.load()
        # RuntimeError: another request has closed the client as certificates were replaced.
        self._errors = (*self._library.errors, ValueError, RuntimeError)
        self._client: Any = None
        self._identity: _Identity | None = None
        self._responses: set[StreamedResponse] = set()
        """Those that may still be arriving."""
        self._compression = {} if _on_loopback(access.server) else {"Accept-Encoding": "gzip"}
        _check_certificates(access)

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        """There is one, whatever the cluster says."""
        return (ServerAddress(self.access.server, self.access.origin),)

    def learn(self, addresses: Sequence[str]) -> bool:
        """The server of the access is the only one."""
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, reason: str = "closed") -> None:
        """Close all connections. Whoever still reads a response gets ConnectionReplaced."""
        client, self._client = self._client, None
        if client is not None:
            await self._close(client, reason)

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[Response]:
        """Send a request. If the answer is 401, the request is sent once more, with renewed
        credentials. Raises ApiUnreachable."""
        response = await self._attempt(request)
        if response.status == 401:
            response.close()
            response = await self._attempt(request)
        self._responses.add(response)
        try:
            yield response
        finally:
            self._responses.discard(response)
            response.close()

    async def _attempt(self, request: Request) -> StreamedResponse:
        headers = {"Content-Type": request.content_type, "Accept": "application/json"}
        with as_unreachable(self._errors):
            header = await self._credentials.header()
            # Noted before the request is sent: another request may renew the credentials meanwhile,
            # and a 401 to the old ones must not discard the new ones.
            generation = self._credentials.generation
            client = await self._connected()
            authorization = {"Authorization": header} if header else {}
            response = await self._call(
                client, request, {**headers, **self._compression, **authorization}
            )
        if response.status == 401:
            self._credentials.refused(generation)
        return StreamedResponse(response, self._errors)

    async def _call(self, client: Any, request: Request, headers: dict[str, str]) -> Any:
        """The library's response, as soon as it begins."""
        method, host, began = request.method, urlsplit(self.access.server).netloc, time.monotonic()
        try:
            async with asyncio.timeout(request.answer_timeout):
                response = await client.call_api(
                    request.path,
                    method,
                    query_params=list(request.query.items()),
                    header_params=headers,
                    body=request.body,
                    _preload_content=False,
                    _request_timeout=(_CONNECT, request.read_timeout),
                )
        except Exception:
            self._requests.failed(method, host)
            raise
        self._requests.answered(method, host, response.status, time.monotonic() - began)
        return response

    async def _connected(self) -> Any:
        """The library's client; a new one when certificates have been replaced on disk or by a
        plugin."""
        access = self.access
        identity = _Identity(
            read_pem(access.authority) if access.authority is not None else None,
            await self._credentials.certificate(),
        )
        if self._client is not None and identity == self._identity:
            return self._client
        client, old = self._new_client(identity), self._client
        self._client, self._identity = client, identity
        if old is not None:
            # This ends the watches that are under way, as client-go does, because the old
            # certificate may have been revoked.
            await self._close(old, "certificates have been replaced")
        return client

    async def _close(self, client: Any, reason: str) -> None:
        """Close a client of the library. It closes its connections without telling the tasks
        that read from them, which would wait until a time-out."""
        for each in self._responses:
            each.cut_off(reason)
        self._responses.clear()
        await client.close()

    def _new_client(self, identity: _Identity) -> Any:
        access = self.access
        configuration = self._library.Configuration()
        configuration.host = access.server
        configuration.verify_ssl = access.verify
        configuration.disable_strict_ssl_verification = self._relaxed_x509
        configuration.tls_server_name = access.tls_server_name or None
        configuration.proxy = access.proxy or None
        with contextlib.ExitStack() as files:
            configuration.ssl_ca_cert = _file(files, identity.authority)
            if identity.certificate is not None:
                configuration.cert_file = _file(files, identity.certificate[0])
                configuration.key_file = _file(files, identity.certificate[1])
            client = self._library.ApiClient(configuration)
        rest = client.rest_client
        rest.pool_manager = _NoRedirects(rest.pool_manager)
        if not self._compression:
            # On loopback there is no bandwidth to save; aiohttp would ask for compression.
            client.set_default_header("Accept-Encoding", "identity")
        client.user_agent = f"uproxy/{__version__}"
        return client


def _file(files: contextlib.ExitStack, pem: bytes | None) -> str | None:
    """A file name under which OpenSSL can read these bytes. It accepts keys from files only, and a
    memfd keeps them off every disk."""
    if pem is None:
        return None
    descriptor = os.memfd_create("pem")
    files.callback(os.close, descriptor)
    os.write(descriptor, pem)
    return f"/proc/self/fd/{descriptor}"


def _check_certificates(access: Access) -> None:
    """Raises SourceError for certificates and keys that can never work, so that this is reported at
    the start instead of with every request."""
    try:
        with contextlib.ExitStack() as files:
            if access.authority is not None:
                name = "certificate-authority"
                ssl.create_default_context(cafile=_file(files, read_pem(access.authority)))
            if access.certificate is not None and access.key is not None:
                name = "client-certificate and client-key"
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                certificate = _file(files, read_pem(access.certificate))
                assert certificate is not None
                # Without `password`, OpenSSL would ask for one at the terminal.
                context.load_cert_chain(
                    certificate, _file(files, read_pem(access.key)), password=lambda: b""
                )
    except CredentialError as error:
        raise SourceError(f"{access.origin}: {error}") from None
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceError(f"{access.origin}: {name}: not usable PEM ({reason})") from None


def _on_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
