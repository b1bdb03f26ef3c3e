"""IP addresses and networks, parsed as leniently as the Kubernetes API server does.

Objects stored before Kubernetes 1.22 may have IPv4 octets with leading zeros, and the API server
still accepts them (ParseIPSloppy in k8s.io/utils/net). Python's ipaddress refuses those, so octets
are normalised first, as decimal numbers. All other code gets addresses in canonical form, in which
equal addresses are equal strings.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final, Literal

Family = Literal["IPv4", "IPv6"]
FAMILIES: Final[tuple[Family, ...]] = ("IPv4", "IPv6")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LEADING_ZEROS = re.compile(r"(?<![0-9a-fA-F:.])0+(?=[0-9]+\.)|(?<=\.)0+(?=[0-9])")
_MAPPED_ZEROS = re.compile(r"(?<=:)0+(?=[0-9]+\.)")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_CANONICAL_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


@lru_cache(maxsize=65536)
def parse_ip(text: str) -> str | None:
    """The canonical form of an IP address; None if `text` is not one.

    An IPv4-mapped IPv6 address becomes IPv4, as in Go's net.IP. One with a zone is refused.
    """
    # Almost every address is canonical IPv4 already. That takes 0.4 us here, 3.8 us by ipaddress.
    if _CANONICAL_IPV4.fullmatch(text):
        return text
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(_decimal(text))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def is_host_address(address: str) -> bool:
    """Whether an address in canonical form can be that of one host. Multicast and broadcast
    addresses cannot, nor can 0.0.0.0 and ::, since connecting to these reaches this host itself."""
    first, dot, _ = address.partition(".")
    if dot and first.isdecimal():
        return 0 < int(first) < 224 or (int(first) >= 240 and address != "255.255.255.255")
    return address != "::" and not address.startswith("ff")


def parse_network(text: str) -> Network | None:
    """The network of a CIDR such as "10.0.0.0/8"; None if `text` is not one. Host bits may be set,
    and spaces may surround it, as in kube-proxy."""
    address, slash, prefix = text.strip().partition("/")
    if not slash or not prefix.isdecimal():
        return None
    try:
        return ipaddress.ip_network(f"{_decimal(address)}/{int(prefix)}", strict=False)
    except ValueError:
        return None


def family_of(address: str) -> Family:
    """The family of an address in canonical form."""
    return "IPv6" if ":" in address else "IPv4"


def _decimal(text: str) -> str:
    if "." not in text:
        return text
    return _LEADING_ZEROS.sub("", _MAPPED_ZEROS.sub("", text))
