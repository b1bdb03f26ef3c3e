"""Receives what the clients of a UDP listener send, by io_uring.

One multishot IORING_OP_RECVMSG brings every datagram in a buffer of the ring, with the client's
address and, for wildcard listeners, the local one. From there its flow sends it to the backend
(ring_flow.py), in the same system call as the datagrams of all other flows. An echo then takes 9.2
us of CPU, 6.3 of them in the kernel (docs/decisions/0007-io-uring.md).

All listeners and flows of a worker share 256 buffers. A datagram is in one only from one turn of
the ring to the next, so their number bounds the datagrams of a turn, not of a second. If none is
free, the receive ends with ENOBUFS, and what arrives meanwhile waits in the queue of its socket.

Each datagram comes by itself at first. When clients send many at a time, the socket is asked for
several in one message (UDP_GRO), which then leave as they came (segments.py).
"""

from __future__ import annotations

from typing import Final, cast

from uproxy.dataplane.udp.flow import Listening
from uproxy.dataplane.udp.keys import Key
from uproxy.dataplane.udp.packing import (
    LOCAL_V4,
    LOCAL_V6,
    MERGED,
    RECVMSG_OUT,
    client_of,
    split_key,
)
from uproxy.dataplane.udp.ring_flow import RingUdpFlow
from uproxy.dataplane.udp.ring_socket import RingSocket
from uproxy.dataplane.udp.segments import SegmentedSends
from uproxy.net import pktinfo
from uproxy.net.segments import merge_received
from uproxy.uring.abi import CQE_BUFFER_SHIFT, CQE_F_BUFFER, CQE_F_MORE, CQE_RES
from uproxy.uring.buffers import address_of
from uproxy.uring.datagrams import BUFFER_SIZE, DatagramReceiver

_QUADS: Final = BUFFER_SIZE // 8
_NAME: Final = RECVMSG_OUT // 8


class RingIntake:
    """Receives for one listener, and gives datagrams to its flows."""

    def __init__(
        self, datagrams: DatagramReceiver, segments: SegmentedSends, listener: Listening
    ) -> None:
        self._listener = listener
        self._wildcard = listener.wildcard
        reactor, sock = listener.context.reactor, listener.sock
        self._socket = RingSocket(datagrams, segments, reactor, sock, wildcard=listener.wildcard)
        self._socket.merge = self._merge
        self._ring = datagrams.ring
        self._buffers = datagrams.buffers
        self._quads = datagrams.buffers.quads
        self._is_ipv6, self._begin = self._socket.is_ipv6, self._socket.begin
        self._flows = cast("dict[Key, RingUdpFlow]", listener.flows)
        self._closed = False
        self._user_data = datagrams.add_callback(self._arrived)
        self._arm()

    def close(self) -> None:
        """Stop receiving. Call it before the socket is closed: the operation refers to the socket,
        so the port would stay taken until the kernel has let go of it. It does so in its task work,
        which with IORING_SETUP_DEFER_TASKRUN runs only in our calls that get events
        (port-kept-by-the-ring)."""
        self._closed = True
        self._ring.remove_callback(self._user_data)
        self._ring.cancel(self._user_data)
        self._ring.submit_and_get_events()

    def _arm(self) -> None:
        if not self._closed:
            header = address_of(self._socket.header)
            self._socket.datagrams.recvmsg(self._socket.fd, self._user_data, header)

    def _arrived(self, completion: int) -> None:
        if not completion & CQE_F_MORE:
            # The operation has ended: with an error that was queued on the socket, and is cleared
            # now, or because no buffer was free. Those are free again when the sends of this turn
            # are decided; armed at once, it would find none and end again.
            self._ring.call_after_turn(self._arm)
            if not completion & CQE_F_BUFFER:
                return
        buffer = completion >> CQE_BUFFER_SHIFT
        key: Key
        if self._is_ipv6:
            key = self._ipv6_key(buffer, 0)
        else:
            at = buffer * _QUADS + _NAME
            key = self._quads[at]
            if self._wildcard:
                key |= self._quads[at + LOCAL_V4] >> 32 << 64
        # Before a flow may begin: it notes the reactor's time, which `tick` brings up to date.
        if self._socket.turn != self._ring.turn:
            self._socket.tick()
        flow = self._flows.get(key) or self._admit(key)
        if flow is not None:
            begin = self._begin
            flow.forward(buffer, begin, (completion & CQE_RES) - begin)
        else:
            self._buffers.give_back(buffer)

    def _merge(self) -> None:
        """Receive several datagrams of a client in one message from now on."""
        self._socket.merges = True
        self._ring.replace_callback(self._user_data, self._arrived_several)
        merge_received(self._listener.sock)

    def _arrived_several(self, completion: int) -> None:
        """Like `_arrived`, when several datagrams may have come in one message."""
        shared, buffer = self._socket, completion >> CQE_BUFFER_SHIFT
        if not completion & CQE_F_BUFFER or shared.control_length(buffer) == shared.control:
            self._arrived(completion)
            return
        if not completion & CQE_F_MORE:
            self._ring.call_after_turn(self._arm)
        if shared.turn != self._ring.turn:
            shared.tick()
        key = self._key_of_several(buffer)
        flow = self._flows.get(key) or self._admit(key)
        if flow is not None:
            size = shared.segment_length(buffer, shared.name_end)
            count = (completion & CQE_RES) - self._begin
            flow.forward_several(buffer, self._begin, count, size)
        else:
            self._buffers.give_back(buffer)

    def _key_of_several(self, buffer: int) -> Key:
        """The key where the control data begins with how long the datagrams are."""
        if self._is_ipv6:
            return self._ipv6_key(buffer, MERGED)
        at = buffer * _QUADS + _NAME
        local = self._quads[at + LOCAL_V4 + MERGED // 8] >> 32 << 64 if self._wildcard else 0
        return self._quads[at] | local

    def _ipv6_key(self, buffer: int, others: int) -> bytes:
        """`others`: bytes of control data before the in6_pktinfo."""
        end = self._socket.name_end
        # Copied, as it stays in the tables, and the buffer is used again after this turn.
        key = self._buffers.view(buffer, RECVMSG_OUT, end).tobytes()
        if self._wildcard:
            local = end + others + LOCAL_V6
            key += self._buffers.view(buffer, local, local + 16)
        return key

    def _admit(self, key: Key) -> RingUdpFlow | None:
        name, local = split_key(key)
        client = client_of(name)
        if not self._listener.admits(client):
            return None
        # The client takes a reply only from where it has sent to (udp-sent-from-the-wrong-address).
        control = pktinfo.reply_from(local if self._wildcard else b"")
        flow = RingUdpFlow(self._listener, self._socket, key, name, client, control)
        return flow if flow.begin() else None
