"""Asks a running uproxy for its status, over HTTP."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from uproxy.http.view import Filter, StatusView

DEFAULT_URL: Final = "http://127.0.0.1:10249"
_PATH: Final = "/api/v1/routes"
_TIMEOUT: Final = 10.0
"""Seconds. A status of 10,000 Services takes well below one."""

EVERYTHING: Final = Filter()


class NoStatus(click.ClickException):
    """Nobody there who could say; one line on stderr, exit code 2."""

    exit_code = 2


url_option: Final = click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    envvar="UPROXY_URL",
    callback=lambda ctx, param, value: base_url(value),
    metavar="URL",
    help="Where it is: its --metrics-bind-address.",
)


def base_url(text: str) -> str:
    """A URL without its path, from "http://HOST:PORT" or "HOST:PORT". Raises click.BadParameter."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise click.BadParameter(f'"{text}" is not like {DEFAULT_URL}', param_hint="--url")
    return f"{parts.scheme}://{parts.netloc}"


def fetch(url: str, wanted: Filter = EVERYTHING) -> StatusView:
    """The selected part of the status. Raises NoStatus."""
    return fetch_both(url, wanted)[0]


def fetch_both(url: str, wanted: Filter) -> tuple[StatusView, bytes]:
    """The selected part of the status, and the JSON that it came as. Raises NoStatus."""
    body = _fetch_json(url, wanted)
    try:
        return msgspec.json.decode(body, type=StatusView), body
    except msgspec.DecodeError as error:
        raise _not_uproxy(url, str(error)) from None


def _fetch_json(url: str, wanted: Filter) -> bytes:
    query = urlencode({name: value for name, value in wanted._asdict().items() if value})
    try:
        return _get(f"{url}{_PATH}?{query}" if query else f"{url}{_PATH}")
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(200).decode(errors="replace").strip()
        if error.code == 400:
            raise NoStatus(text) from None
        raise _not_uproxy(url, f"HTTP {error.code} for {_PATH}") from None
    except urllib.error.URLError as error:
        raise NoStatus(_nobody(url, error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise NoStatus(_nobody(url, error)) from None


def _get(url: str) -> bytes:
    # Not through a proxy of the environment: that would ask its loopback addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_TIMEOUT) as answer:
        body: bytes = answer.read()
        return body


def _nobody(url: str, reason: Any) -> str:
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return (
        f"no uproxy answers at {url} ({text.lower()}); start one with: uproxy run, or uproxy demo; "
        "or say where it is with --url"
    )


def _not_uproxy(url: str, detail: str) -> NoStatus:
    return NoStatus(
        f"what answers at {url} is no uproxy, or not this version ({detail}); "
        "kube-proxy has the same default port: say where uproxy is with --url"
    )
