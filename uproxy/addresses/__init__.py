"""The addresses of this node: which it has, when they change, and those claimed for Services."""

from uproxy.addresses.claims import Claims
from uproxy.addresses.local import AddressMonitor, local_addresses
from uproxy.addresses.routes import remove_claims

__all__ = ["AddressMonitor", "Claims", "local_addresses", "remove_claims"]
