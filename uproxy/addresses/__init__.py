"""The addresses of this node: which it has, when they change, and those claimed for Services."""

from uproxy.addresses.claims import Claims
from uproxy.addresses.local import AddressMonitor, Interfaces, interfaces, local_addresses
from uproxy.addresses.routes import remove_claims
from uproxy.addresses.surroundings import gateways, name_servers, resolved

__all__ = [
    "AddressMonitor",
    "Claims",
    "Interfaces",
    "gateways",
    "interfaces",
    "local_addresses",
    "name_servers",
    "remove_claims",
    "resolved",
]
