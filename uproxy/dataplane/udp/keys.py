"""What identifies a client, and its flow within a listener."""

from __future__ import annotations

Address = tuple[str, int] | tuple[str, int, int, int]
"""A client, as the socket module gives it. It is kept whole, because a reply to a link-local IPv6
address needs its scope."""

Key = Address | tuple[Address, bytes] | bytes | int
"""What identifies a flow within a listener: the client's address, and for wildcard listeners the
local address that it has sent to as well. epoll uses values of the socket module. For the ring,
both addresses are taken from the kernel's memory as they are, one behind the other: as a number
for IPv4, where they fit into one, and as bytes for IPv6. Nothing is parsed unless a flow
begins."""
