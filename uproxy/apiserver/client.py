"""Requests to the API server, authenticated, through kubernetes_asyncio's client."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from uproxy import __version__
from uproxy.apiserver import client_library
from uproxy.apiserver.access import Access
from uproxy.apiserver.credentials import CredentialError, Credentials, read_pem
from uproxy.apiserver.response import Response
from uproxy.apiserver.unreachable import as_unreachable
from uproxy.core.errors import SourceError

_CONNECT: Final = 10.0
"""Seconds to connect, TLS included."""


class ApiServer(Protocol):
    """What sources and Events need of an API server."""

    @property
    def access(self) -> Access: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        answer_timeout: float = 60.0,
        read_timeout: float = 60.0,
    ) -> AbstractAsyncContextManager[Response]: ...


class _Identity(NamedTuple):
    """What a TLS context is made of: where it differs, another client is needed."""

    authority: bytes | None
    certificate: tuple[bytes, bytes] | None


class _Straight:
    """The library's HTTP session, but for redirects: an API server sends none, and whoever is
    asked instead would be believed."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(self, **settings: Any) -> Any:
        return self._session.request(**settings, allow_redirects=False)

    async def close(self) -> None:
        await self._session.close()


class ApiClient:
    """One API server. Open while the context is.

    Raises SourceError where certificates cannot be used at all.
    """

    def __init__(self, access: Access, *, relaxed_x509: bool = False) -> None:
        self.access = access
        self._relaxed_x509 = relaxed_x509
        self._credentials = Credentials(access)
        self._library = client_library.load()
        # RuntimeError: another request has closed the client because certificates were replaced.
        self._errors = (*self._library.errors, ValueError, RuntimeError)
        self._client: Any = None
        self._identity: _Identity | None = None
        self._compression = {} if _on_loopback(access.server) else {"Accept-Encoding": "gzip"}
        _check_certificates(access)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

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
        """Send a request; an answer 401 is asked for once more, with renewed credentials.

        `body` is plain data, `answer_timeout` the seconds in which the answer has to begin once
        there are credentials, `read_timeout` those that may pass between two parts of it. Raises
        ApiUnreachable.
        """
        settings = {
            "query_params": list((query or {}).items()),
            "body": body,
            "answer": answer_timeout,
            "timeout": (_CONNECT, read_timeout),
        }
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        answer = await self._send(method, path, headers, settings)
        if answer.status == 401:
            answer.close()
            answer = await self._send(method, path, headers, settings)
        try:
            yield answer
        finally:
            answer.close()

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], settings: Mapping[str, Any]
    ) -> Response:
        with as_unreachable(self._errors):
            header = await self._credentials.header()
            shown = self._credentials.edition
            client = await self._connected()
            authorization = {"Authorization": header} if header else {}
            async with asyncio.timeout(settings["answer"]):
                response = await client.call_api(
                    path,
                    method,
                    query_params=settings["query_params"],
                    header_params={**headers, **self._compression, **authorization},
                    body=settings["body"],
                    _preload_content=False,
                    _request_timeout=settings["timeout"],
                )
        if response.status == 401:
            self._credentials.refused(shown)
        return Response(response, self._errors)

    async def _connected(self) -> Any:
        """The library's client, a new one where certificates have been replaced."""
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
            # Ends what is being watched, as with client-go: the old certificate may be revoked.
            await old.close()
        return client

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
        rest.pool_manager = _Straight(rest.pool_manager)
        if not self._compression:
            # aiohttp would ask for compressed answers, which cost more than they save here.
            client.set_default_header("Accept-Encoding", "identity")
        client.user_agent = f"uproxy/{__version__}"
        return client


def _file(files: contextlib.ExitStack, pem: bytes | None) -> str | None:
    """A name under which OpenSSL can read these bytes, without a key ever being on a disk."""
    if pem is None:
        return None
    descriptor = os.memfd_create("pem")
    files.callback(os.close, descriptor)
    os.write(descriptor, pem)
    return f"/proc/self/fd/{descriptor}"


def _check_certificates(access: Access) -> None:
    """Raises SourceError for certificates and keys that can never work."""
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
