"""Gets the status of a running uproxy over HTTP."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from uproxy.core.printable import printable, printable_json
from uproxy.core.report.flow_format import FlowFilter, FlowsView
from uproxy.core.report.status_format import Filter, ServiceNamesView, StatusView

DEFAULT_URL: Final = "http://127.0.0.1:10249"
_STATUS: Final = "/api/v1/routes"
_NAMES: Final = "/api/v1/services"
_FLOWS: Final = "/api/v1/flows"
_TIMEOUT: Final = 10.0
"""Seconds without a byte. A status of 10,000 Services takes well below one second."""
_MAX_SECONDS: Final = 60.0
"""For a whole answer: a person does not wait longer, however slow the connection is."""
_MAX_BYTES: Final = 512 * 1024 * 1024
"""For a whole answer; a status of 10,000 Services has about 30 MB."""
_CHUNK: Final = 1024 * 1024

EVERYTHING: Final = Filter()
View = TypeVar("View", bound=msgspec.Struct)


class _Patience(NamedTuple):
    """Seconds."""

    silence: float = _TIMEOUT
    whole: float = _MAX_SECONDS


class NoStatus(click.ClickException):
    """The status is not available; one line on stderr, exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


url_option: Final = click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    envvar="UPROXY_URL",
    callback=lambda ctx, param, value: base_url(value),
    metavar="URL",
    help="URL of the running uproxy, which is its --metrics-bind-address.",
)


def base_url(text: str) -> str:
    """A URL without its path, from "http://HOST:PORT" or "HOST:PORT". Raises click.BadParameter."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        good = good and url.isascii() and url.isprintable()
    except ValueError:
        good = False
    if not good:
        raise click.BadParameter(
            f'"{text}" is not a URL; give one like {DEFAULT_URL}', param_hint="--url"
        )
    return f"{parts.scheme}://{parts.netloc}"


def fetch(url: str, wanted: Filter = EVERYTHING) -> StatusView:
    """The selected part of the status. Raises NoStatus."""
    return fetch_both(url, wanted)[0]


def fetch_both(url: str, wanted: Filter) -> tuple[StatusView, bytes]:
    """The selected part of the status, and the JSON that it came as. Raises NoStatus.

    Both are safe to print on a terminal, whatever the server answers.
    """
    given = {name: value for name, value in wanted._asdict().items() if value}
    body = _fetch_json(url, _STATUS, given, _Patience())
    return _decoded(url, body, StatusView), printable_json(body)


def fetch_service_names(url: str, *, patience: float) -> list[str]:
    """NAMESPACE/NAME of all Services that uproxy knows, if it answers within `patience` seconds.
    Raises NoStatus."""
    body = _fetch_json(url, _NAMES, {}, _Patience(patience, patience))
    return [printable(each) for each in _decoded(url, body, ServiceNamesView).services]


def fetch_flows(url: str, wanted: FlowFilter) -> FlowsView:
    """Flows that have ended, safe to print on a terminal. Raises NoStatus."""
    given = {name: str(value) for name, value in wanted._asdict().items() if value}
    return _decoded(url, _fetch_json(url, _FLOWS, given, _Patience()), FlowsView)


def _decoded(url: str, body: bytes, kind: type[View]) -> View:
    """An answer whose texts are safe to print on a terminal. Raises NoStatus."""
    try:
        view = msgspec.json.decode(body, type=kind)
        if not _is_plain(body):
            view = msgspec.convert(_fit_to_print(msgspec.json.decode(body)), kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_uproxy(url, str(error)) from None
    return view


def _is_plain(body: bytes) -> bool:
    """Whether no string can need escaping, so that a large status need not be searched."""
    return body.isascii() and b"\\" not in body and b"\x7f" not in body


def _fit_to_print(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_fit_to_print(each) for each in value]
    if isinstance(value, dict):
        return {printable(key): _fit_to_print(each) for key, each in value.items()}
    return value


def _fetch_json(url: str, path: str, given: Mapping[str, str], patience: _Patience) -> bytes:
    query = urlencode(given, errors="replace")
    try:
        return _get(f"{url}{path}?{query}" if query else f"{url}{path}", patience)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(200).decode(errors="replace").strip()
        if error.code == 400:
            raise NoStatus(text) from None
        raise _not_uproxy(url, f"HTTP {error.code} for {path}") from None
    except urllib.error.URLError as error:
        raise NoStatus(_unreachable(url, error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise NoStatus(_unreachable(url, error)) from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer like any other, which is not a status."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(url: str, patience: _Patience) -> bytes:
    # A proxy that the environment names would connect to its own loopback addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    began = time.monotonic()
    body = bytearray()
    with opener.open(url, timeout=patience.silence) as answer:
        while chunk := answer.read1(_CHUNK):
            body += chunk
            if len(body) > _MAX_BYTES or time.monotonic() - began > patience.whole:
                raise _not_uproxy(url, "the answer is too long, or takes too long")
    return bytes(body)


def _unreachable(url: str, reason: Any) -> str:
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return (
        f"no uproxy answers at {url} ({text.lower()}); "
        'start one with "uproxy run" or "uproxy demo", or give its address with --url'
    )


def _not_uproxy(url: str, detail: str) -> NoStatus:
    return NoStatus(
        f"the program at {url} is not uproxy, or is another version ({detail}); "
        "kube-proxy has the same default port, so give the address of uproxy with --url"
    )
