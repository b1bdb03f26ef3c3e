"""Why the API server has not answered, in words that reveal no secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import traceback
from collections.abc import Iterator
from typing import Final

from uproxy.apiserver.credentials import CredentialError
from uproxy.core.brief import brief

log = logging.getLogger(__name__)

_STRICT_ONLY: Final = range(80, 94)
"""X509_V_ERR_* codes of OpenSSL that occur only with VERIFY_X509_STRICT: a certificate lacks an
extension that RFC 5280 requires. Python sets that flag from 3.13 on."""


class ApiUnreachable(Exception):
    """No response, or only a part of one; the message is the reason, in one line."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        """Whether there is no point in asking again soon, because a server is there and refuses, or
        because there are no credentials to show."""


class NoCredentials(ApiUnreachable):
    """There are no credentials to send a request with, wherever the server is."""


class ConnectionReplaced(ApiUnreachable):
    """This client has closed the connection itself, because it uses another one from now on."""


@contextlib.contextmanager
def as_unreachable(errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise ApiUnreachable in place of what a request raises; `errors` is what it is known to
    raise."""
    try:
        yield
    except CredentialError as error:
        raise NoCredentials(str(error), refused=True) from None
    except errors as error:
        refused = isinstance(_cause(error), ssl.SSLError | ssl.CertificateError)
        raise ApiUnreachable(describe(error), refused=refused) from None
    except Exception as error:
        # The library raises what it does not document. The message may contain a token or a
        # password, so only the type and the traceback are logged.
        name, frames = type(error).__name__, traceback.format_tb(error.__traceback__)
        log.debug("unexpected %s:\n%s", name, "".join(frames))
        raise ApiUnreachable(f"unexpected {name}", refused=True) from None


def _cause(error: BaseException) -> BaseException:
    return getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error


def describe(error: BaseException) -> str:
    """What has gone wrong with a request, in one line, with what may help."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _describe_certificate(cause)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, UnicodeError):
        return "the request contains text that cannot be sent"  # The error's message quotes it.
    if getattr(cause, "request_info", None) is not None:
        # aiohttp's text has the URL of the request, with another timeoutSeconds in each attempt: a
        # reason that is always new would be logged for each of them.
        message = getattr(cause, "message", "")
        return brief(f"the answer is not valid HTTP: {' '.join(message.split())}")
    text = str(cause) or type(cause).__name__
    if isinstance(cause, OSError) and cause.strerror:
        # asyncio replaces "Connection refused" by a sentence of its own, so the text is taken from
        # the number. A name that cannot be resolved has a number below 0, which strerror lacks.
        number = cause.errno or 0
        text = os.strerror(number) if number > 0 else cause.strerror
    return brief(f"{text[:1].lower()}{text[1:]}")


def _describe_certificate(error: ssl.SSLCertVerificationError) -> str:
    text = brief(f"the server's certificate is refused: {error.verify_message}")
    if error.verify_code in _STRICT_ONLY:
        text += "; the cluster's certificates are older than this rule: try --tls-relaxed-x509"
    return text
