"""The addresses at which an API server may answer, in the order in which they are tried. Pure.

A Pod that replaces kube-proxy cannot rely on the address that it is given, the ClusterIP of the
Service `kubernetes`: nothing serves that address before this program does.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from uproxy.apiserver.access import Access
from uproxy.core.ip import parse_ip

IN_CLUSTER_NAME: Final = "kubernetes.default.svc"
"""A name that is in the certificate of every API server, since Pods use it."""
LEARNED: Final = "the EndpointSlice of the Service kubernetes"
_MOST_LEARNED: Final = 16
_MOST_FORMER: Final = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address of an API server. Two are equal if they lead to the same place with the same
    demands, wherever they were found."""

    server: str
    """http(s)://HOST:PORT"""
    tls_server_name: str = ""
    """The name that the server's certificate must have; "": the host."""
    origin: str = field(default="", compare=False)
    """Where it was found, for messages."""

    @property
    def address(self) -> str:
        """HOST:PORT"""
        return urlsplit(self.server).netloc


class ServerAddress(NamedTuple):
    """One address of an API server, and what is known about it."""

    server: str
    """http(s)://HOST:PORT"""
    origin: str
    """Where it was found, for messages."""
    in_use: bool = True
    """Whether requests are sent there."""
    former: bool = False
    """Whether it was an address of an API server earlier, and is a last resort now."""
    reason: str = ""
    """Why it did not answer when it was tried last; "": it did, or was not tried."""


def candidate_at(access: Access, address: str, origin: str) -> Candidate:
    """The server of `access` at another address, "HOST:PORT".

    Which name its certificate must have depends on how the cluster was found:

    * With a kubeconfig it is the name that the kubeconfig wants anyway: its tls-server-name, or
      else the host of its server. The address only says where that server is.
    * In a Pod it is IN_CLUSTER_NAME, because the certificate need not have the IP address: that may
      belong to a load balancer or to a node which came later. A DNS name must be in the
      certificate itself, as kubelet demands; a load balancer may choose the server by it (SNI).
    """
    name = IN_CLUSTER_NAME
    if not access.in_cluster:
        name = access.tls_server_name or urlsplit(access.server).hostname or ""
    elif not parse_ip(urlsplit(f"//{address}").hostname or ""):
        name = ""
    server = urlsplit(access.server)._replace(netloc=address).geturl()
    return Candidate(server, name, origin)


class Candidates:
    """All addresses that are known, which of them is in use, and why the others are not.

    The order of preference: those given by people or by files, those learned from the cluster, that
    of the access, and last those that the cluster does not name any more. The last resorts are kept
    because every present address may have failed when control-plane nodes were replaced while this
    node was cut off.
    """

    def __init__(
        self, access: Access, first: Sequence[Candidate] = (), *, spread: str = ""
    ) -> None:
        """`first`: the most preferred ones. `spread`: a text that differs between the nodes, so
        that they do not all choose the same one of the learned addresses."""
        self.current: Candidate | None = None
        """The one that has answered and has not failed since."""
        self.latest: Candidate | None = None
        """The one that has answered last."""
        self.failures: Mapping[Candidate, str] = {}
        """Why those that were tried have not answered."""
        self._access = access
        self._first = tuple(first)
        self._base = Candidate(access.server, access.tls_server_name, _base_origin(access))
        self._told: Sequence[str] = ()
        """What the cluster has said last."""
        self._learned: tuple[Candidate, ...] = ()
        self._former: tuple[Candidate, ...] = ()
        self._spread = spread

    @property
    def all(self) -> tuple[Candidate, ...]:
        """Every candidate once, in the order of preference."""
        current = (self.current,) if self.current is not None else ()
        listed = (*self._first, *self._learned, self._base, *self._former, *current)
        return tuple(dict.fromkeys(listed))

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        """All of them for people to see, in the order of preference."""
        present = {*self._first, *self._learned, self._base}
        return [
            ServerAddress(
                each.server,
                each.origin,
                in_use=each == self.current,
                former=each not in present,
                reason=self.failures.get(each, ""),
            )
            for each in self.all
        ]

    def in_turn(self) -> Sequence[Candidate]:
        """All of them in the order in which to try them: first the one in use, last those that did
        not answer before."""
        return sorted(self.all, key=lambda each: (each != self.current, each in self.failures))

    def answered(self, candidate: Candidate) -> None:
        """This one is used from now on."""
        self.current = self.latest = candidate
        self.failures = {at: why for at, why in self.failures.items() if at != candidate}

    def failed(self, candidate: Candidate, reason: str) -> None:
        """This one does not answer."""
        self.failures = {**self.failures, candidate: reason}
        if candidate == self.current:
            self.current = None

    def learn(self, addresses: Sequence[str]) -> bool:
        """The cluster says that its API servers are at these addresses, "HOST:PORT". Returns
        whether that is news.

        If there are none, nothing changes: a cluster without an API server could not say so. If the
        server's certificate is not verified, nothing is learned, because whoever may write an
        EndpointSlice could have the credentials sent to a server of theirs.
        """
        if not addresses or not (self._access.verify and self._access.server.startswith("https:")):
            return False
        if addresses == self._told:
            return False  # This is said after each sync, and there may be a thousand addresses.
        self._told = tuple(addresses)
        found = {candidate_at(self._access, each, LEARNED) for each in addresses}
        learned = tuple(sorted(found, key=self._rank)[:_MOST_LEARNED])
        if learned == self._learned:
            return False
        earlier = (*self._learned, *self._former)
        self._former = tuple(each for each in earlier if each not in found)[:_MOST_FORMER]
        news = set(learned) - set(self._learned)
        self._learned = learned
        if news and self.current == self._base and self._access.in_cluster:
            # What serves the ClusterIP may be this program. Requests that went through it would
            # fail whenever it cannot serve.
            self.current = None
        known = set(self.all)
        self.failures = {at: why for at, why in self.failures.items() if at in known}
        return True

    def _rank(self, candidate: Candidate) -> tuple[int, str]:
        return zlib.crc32(f"{self._spread} {candidate.server}".encode()), candidate.server


def _base_origin(access: Access) -> str:
    return "the environment of this Pod" if access.in_cluster else access.origin
