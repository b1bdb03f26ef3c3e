"""Which names a server answers to.

A page in a browser may talk to its own server under its own name, and then have that name resolve
to 127.0.0.1 (DNS rebinding): what it reads from then on is ours. So requests must name the server
in a way that nobody else can: by an address, which nothing resolves, or by a name that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Final

from uproxy.core.ip import parse_ip

ANY = "*"
"""Instead of a name: all of them."""

_WITH_PORT: Final = re.compile(r"(\[[^]]*\]|[^:]*)(?::\d*)?")
"""The Host header (RFC 9110, 7.2): a name or an address, and perhaps a port."""


def known_names(*names: str) -> frozenset[str]:
    """ "localhost" and others, as `answers_to` wants them."""
    return frozenset({"localhost", *map(_canonical, names)} - {""})


def answers_to(hosts: Iterable[str], names: Set[str]) -> bool:
    """Whether a request with these Host headers is meant for a server with these names.

    No browser leaves the header out; HTTP/1.0 does.
    """
    return ANY in names or all(_is_known(host, names) for host in hosts)


def _is_known(host: str, names: Set[str]) -> bool:
    name = _without_port(host.strip())
    return parse_ip(name) is not None or _canonical(name) in names


def _without_port(host: str) -> str:
    """Itself where it has another form: an IPv6 address without brackets, or something odd."""
    found = _WITH_PORT.fullmatch(host)
    if found is None:
        return host
    name = found[1]
    return name[1:-1] if name.startswith("[") else name


def _canonical(name: str) -> str:
    return name.removesuffix(".").lower()
