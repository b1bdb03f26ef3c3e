"""Which host names a server answers to.

A page in a browser may talk to its own server under its own name, and then have that name resolve
to 127.0.0.1 (DNS rebinding). From then on it would read what uproxy answers. So a request must
address the server in a way that a page cannot make up: by an IP address, which is not resolved, or
by a name that is known.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Final

from uproxy.core.ip import parse_ip

ANY = "*"
"""In place of a name: all names are allowed."""

_WITH_PORT: Final = re.compile(r"(\[[^]]*\]|[^:]*)(?::\d*)?")
"""The Host header (RFC 9110, 7.2): a name or an address, and perhaps a port."""


def known_names(*names: str) -> frozenset[str]:
    """These names and "localhost", in the form that `answers_to` takes."""
    return frozenset({"localhost", *map(_canonical, names)} - {""})


def answers_to(hosts: Iterable[str], names: Container[str]) -> bool:
    """Whether a request with these Host headers is meant for a server with these names.

    A request without the header is answered: browsers always send it, clients of HTTP/1.0 do not.
    """
    return ANY in names or all(_is_known(host, names) for host in hosts)


def _is_known(host: str, names: Container[str]) -> bool:
    name = _without_port(host.strip())
    return parse_ip(name) is not None or _canonical(name) in names


def _without_port(host: str) -> str:
    """The name or address of a Host header. A text of another form is returned as it is: an IPv6
    address without brackets, or something invalid."""
    found = _WITH_PORT.fullmatch(host)
    if found is None:
        return host
    name = found[1]
    return name[1:-1] if name.startswith("[") else name


def _canonical(name: str) -> str:
    return name.removesuffix(".").lower()
