"""One line about all ports that one other process has, in place of one for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_FEW = 2
"""So many frontends are named, and more are counted."""

_ADDRESSES = ("--nodeport-addresses", "--healthz-bind-address", "--metrics-bind-address")
_RULES = (
    "its rules take the packets of Services before uproxy gets them: stop it, and remove them with "
    "kube-proxy --cleanup"
)


class Taken(NamedTuple):
    """What cannot listen, because a process has its port."""

    frontends: Sequence[str]
    """Each with its Service."""
    others: Sequence[str]
    """Such as "the health address"."""


def conflict_text(
    program: str, process: int, user: str, taken: Taken, *, apart: bool = False
) -> str:
    """Who has the ports, of what, and what to do. `program`: "" if it is not known. `apart`: uproxy
    serves Services that a kube-proxy leaves alone."""
    has = f"{_who(program, process, user)} has {_what(taken)}"
    if program == "kube-proxy" and not apart:
        return f"{has}; {_RULES}"
    return f"{has}; {_advice(program, taken)}"


def own_port_text(server: str, taken: Taken) -> str:
    """A server of this uproxy has the ports; `server`: "health" or "metrics"."""
    option = f"--{'healthz' if server == 'health' else server}-bind-address"
    return (
        f"the {server} address of this uproxy has {_what(taken)}; give it another port ({option}), "
        "or give the Service another one"
    )


def rules_text(found: str) -> str:
    """A kube-proxy, or what one has left, that was found by its rules."""
    return f"{found} serves Services on this node, too; {_RULES}"


def _who(program: str, process: int, user: str) -> str:
    number = f" (process {process})" if process else ""
    if program == "uproxy":
        return f"another uproxy{number}"
    if program:
        return f"{program}{number}"
    return f"a process of the user {user}" if user else "another process"


def _what(taken: Taken) -> str:
    frontends = list(taken.frontends)
    if len(frontends) > _FEW:
        frontends = [f"{len(frontends)} frontends"]
    found = [*frontends, *taken.others]
    one = len(found) == 1 and len(taken.frontends) <= 1
    listed = " and ".join(filter(None, (", ".join(found[:-1]), found[-1])))
    return f"the {'port' if one else 'ports'} of {listed}"


def _advice(program: str, taken: Taken) -> str:
    if program == "uproxy":
        flags = _ADDRESSES[not taken.frontends : 3 if taken.others else 1]
        own = f"addresses ({', '.join(flags)})"
        if taken.frontends:
            own = f"Services (--service-proxy-name) or {own}"
        return f"stop it, or give each {own} of its own"
    if not program:
        return "as root, ss -ltnup says which process has them; uproxy keeps trying"
    if taken.frontends:
        return "stop it, or change the ports of the Services; uproxy keeps trying"
    return f"stop it, or use other addresses ({', '.join(_ADDRESSES[1:])}); uproxy keeps trying"
