"""Which names a server answers to.

A page in a browser may talk to its own server under its own name, and then have that name resolve
to 127.0.0.1 (DNS rebinding): what it reads from then on is ours. So requests must name the server
in a way that nobody else can: by an address, which nothing resolves, or by a name that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from uproxy.core.ip import parse_ip

ANY = "*"
"""Instead of a name: all of them."""


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
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]


def _canonical(name: str) -> str:
    return name.removesuffix(".").lower()
