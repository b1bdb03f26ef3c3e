"""Requests to the API server, authenticated, through kubernetes_asyncio's client."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from uproxy import __version__
from uproxy.sources import client_library
from uproxy.sources.access import Access
from uproxy.sources.brevity import brief
from uproxy.sources.credentials import CredentialError, Credentials, read_pem
from uproxy.sources.errors import SourceError

log = logging.getLogger(__name__)

_CONNECT: Final = 10.0
"""Seconds to connect, TLS included."""
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A server that is cut off without a word is noticed after a minute, even by a watch that waits."""
_STRICT_ONLY: Final = range(80, 94)
"""X509_V_ERR_* codes of OpenSSL that only VERIFY_X509_STRICT brings about: a certificate lacks
an extension that RFC 5280 wants. Python sets that flag from 3.13 on."""


class ApiUnreachable(Exception):
    """No answer, or not all of one; the reason in one line."""


class Answer:
    """An answer, perhaps still arriving."""

    def __init__(self, response: Any, errors: tuple[type[Exception], ...]) -> None:
        self._response = response
        self._errors = errors
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        """Not case-sensitive."""

    async def read(self) -> bytes:
        """The rest of the body. Raises ApiUnreachable where it ends too early."""
        with _named_errors(self._errors):
            body: bytes = await self._response.read()
            return body

    async def chunk(self) -> bytes:
        """The next bytes, b"" at the end. Raises ApiUnreachable where it ends too early."""
        with _named_errors(self._errors):
            some: bytes = await self._response.content.readany()
            return some

    def close(self) -> None:
        """Keeps the connection for other requests if the answer was read to the end."""
        self._response.release() if self._response.content.at_eof() else self._response.close()

    def keep_alive(self) -> None:
        """Have the kernel probe a connection on which nothing may happen for minutes."""
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                for option in _KEEPALIVE:
                    sock.setsockopt(*option)


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
        read_timeout: float = 60.0,
    ) -> AbstractAsyncContextManager[Answer]: ...


class _Identity(NamedTuple):
    """What a TLS context is made of: where it differs, another client is needed."""

    authority: bytes | None
    certificate: tuple[bytes, bytes] | None


class Api:
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
        read_timeout: float = 60.0,
    ) -> AsyncIterator[Answer]:
        """Send a request; an answer 401 is asked for once more, with renewed credentials.

        `body` is plain data, `read_timeout` the seconds that may pass between two parts of the
        answer. Raises ApiUnreachable.
        """
        settings = {
            "query_params": list((query or {}).items()),
            "body": body,
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
    ) -> Answer:
        with _named_errors(self._errors):
            header = await self._credentials.header()
            client = await self._connected()
            authorization = {"Authorization": header} if header else {}
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
            self._credentials.refused(header)
        return Answer(response, self._errors)

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


@contextlib.contextmanager
def _named_errors(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except CredentialError as error:
        raise ApiUnreachable(str(error)) from None
    except errors as error:
        raise ApiUnreachable(describe(error)) from error
    except Exception as error:
        # The library has raised what it does not promise. Its words may be anything.
        log.debug("unexpected", exc_info=True)
        raise ApiUnreachable(f"unexpected {type(error).__name__}") from error


def describe(error: BaseException) -> str:
    """What has gone wrong with a request, in one line, and what may help."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _describe_certificate(cause)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    text = str(cause) or type(cause).__name__
    if isinstance(cause, OSError) and cause.strerror:
        # asyncio puts words of its own in place of "Connection refused"; names that cannot be
        # resolved have numbers below 0.
        number = cause.errno or 0
        text = os.strerror(number) if number > 0 else cause.strerror
    return brief(f"{text[:1].lower()}{text[1:]}")


def _describe_certificate(error: ssl.SSLCertVerificationError) -> str:
    text = f"the server's certificate is refused: {error.verify_message}"
    if error.verify_code in _STRICT_ONLY:
        text += "; the cluster's certificates are older than this rule: try --tls-relaxed-x509"
    return text
