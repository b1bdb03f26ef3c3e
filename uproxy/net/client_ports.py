"""Ports of sockets that have a pod's address.

The pod opens connections of its own from the same address. So that no two connections of the two
can be confused, and replies to the pod's own are not diverted, these sockets have ports that pods
hardly choose: below the kernel's default for net.ipv4.ip_local_port_range (32768 to 60999), and
below NodePorts (30000 to 32767).

A server of the node that listens at all addresses cannot have a port that one of these sockets
has, unless both are for TCP and the server sets SO_REUSEADDR, as nearly all do. It is the same with
any connection that this node makes.

The ports are bound one by one: IP_LOCAL_PORT_RANGE (ip(7), Linux 6.3) cannot select them, since a
bound outside of net.ipv4.ip_local_port_range has no effect.
"""

from __future__ import annotations

from typing import Final

CLIENT_PORTS: Final = range(10000, 30000)

PROBE_PORT: Final = 9
"""What is dialed to find out whether replies to pods come up from a bridge, and whether a pod is
alive: the discard service, which hardly any pod has."""
