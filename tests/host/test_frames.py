"""Frames, byte by byte as the RFCs have them, and those that hostile neighbours may send."""

from __future__ import annotations

import random

from uproxy.host.frames import Heard, announcements, parse_frame, probe

MAC, OTHER = "02:00:5e:10:00:01", "02:00:5e:10:00:02"
MAC_BYTES = "02005e100001"
LINK_LOCAL = "fe80::5eff:fe10:1"
IPV4, IPV6 = "192.0.2.7", "2001:db8::42:7"


def _hex(*words: str) -> bytes:
    return bytes.fromhex("".join(words))


def test_an_ipv4_address_is_announced_in_both_forms() -> None:
    """RFC 5227, 3: sender and target address are the same. RFC 826 for the layout."""
    request, reply = announcements(IPV4, MAC)
    ethernet = ("ffffffffffff", MAC_BYTES, "0806")
    form = ("0001", "0800", "06", "04")
    assert request == _hex(
        *ethernet, *form, "0001", MAC_BYTES, "c0000207", "000000000000", "c0000207"
    )
    assert reply == _hex(*ethernet, *form, "0002", MAC_BYTES, "c0000207", MAC_BYTES, "c0000207")
    assert parse_frame(request) == parse_frame(reply) == Heard(IPV4, MAC)


def test_an_ipv6_address_is_announced_to_all_nodes() -> None:
    """RFC 4861, 4.4 and 7.2.6: Override is set; Solicited and Router are not."""
    (frame,) = announcements(IPV6, MAC, LINK_LOCAL)
    source, group = "fe8000000000000000005efffe100001", "ff020000000000000000000000000001"
    target = "20010db8000000000000000000420007"
    assert frame[:54] == _hex(
        *("333300000001", MAC_BYTES, "86dd", "60000000", "0020", "3a", "ff", source, group)
    )
    assert frame[54:56] == _hex("8800")
    assert frame[58:] == _hex("20000000", target, "0201", MAC_BYTES)
    assert _sum(frame) == 0xFFFF
    assert parse_frame(frame) == Heard(IPV6, MAC)


def test_without_a_link_local_address_the_announced_one_is_the_source() -> None:
    (frame,) = announcements(IPV6, MAC)
    assert frame[22:38] == _hex("20010db8000000000000000000420007")
    assert _sum(frame) == 0xFFFF
    assert parse_frame(frame) == Heard(IPV6, MAC)


def test_an_arp_probe_names_no_sender() -> None:
    """RFC 5227, 2.1.1."""
    assert probe(IPV4, MAC) == _hex(
        *("ffffffffffff", MAC_BYTES, "0806", "0001", "0800", "06", "04", "0001"),
        *(MAC_BYTES, "00000000", "000000000000", "c0000207"),
    )
    assert parse_frame(probe(IPV4, MAC)) is None


def test_a_solicitation_goes_to_the_group_of_the_address() -> None:
    """RFC 4861, 4.3; RFC 4291, 2.7.1; RFC 2464, 7."""
    frame = probe(IPV6, MAC, LINK_LOCAL)
    group, target = "ff0200000000000000000001ff420007", "20010db8000000000000000000420007"
    assert frame[:14] == _hex("3333ff420007", MAC_BYTES, "86dd")
    assert frame[22:54] == _hex("fe8000000000000000005efffe100001", group)
    assert frame[54:56] == _hex("8700")
    assert frame[58:] == _hex("00000000", target, "0101", MAC_BYTES)
    assert _sum(frame) == 0xFFFF
    assert parse_frame(frame) is None
    without = probe(IPV6, MAC)
    assert without[22:38] == bytes(16)
    assert without[58:] == _hex("00000000", target), "no option without a source"
    assert _sum(without) == 0xFFFF


def test_an_advertisement_without_the_option_is_from_its_sender() -> None:
    (frame,) = announcements(IPV6, MAC, LINK_LOCAL)
    body = bytearray(frame[:-8])
    body[18:20] = (24).to_bytes(2)
    assert parse_frame(_summed(body)) == Heard(IPV6, MAC)


def test_frames_of_others_are_recognised() -> None:
    """A padded ARP reply, and a solicited advertisement behind another option."""
    reply = announcements(IPV4, OTHER)[1] + bytes(18)
    assert parse_frame(reply) == Heard(IPV4, OTHER)
    (frame,) = announcements(IPV6, OTHER, LINK_LOCAL)
    body = bytearray(frame[:-8] + _hex("0e01", "aabbccddeeff") + frame[-8:])
    body[18:20] = (40).to_bytes(2)
    assert parse_frame(_summed(body)) == Heard(IPV6, OTHER)


def test_what_must_be_ignored() -> None:
    """RFC 4861, 7.1.2, and senders that cannot be."""
    (frame,) = announcements(IPV6, MAC, LINK_LOCAL)
    reply = announcements(IPV4, MAC)[1]
    changes: dict[str, tuple[bytes, int, bytes]] = {
        "hop limit": (frame, 21, b"\xfe"),
        "checksum": (frame, 56, b"\x00\x00"),
        "code": (frame, 55, b"\x01"),
        "multicast target": (frame, 62, b"\xff\x02"),
        "option of length 0": (frame, 79, b"\x00"),
        "option that is too long": (frame, 79, b"\x02"),
        "next header": (frame, 20, b"\x11"),
        "length beyond the frame": (frame, 18, b"\x40\x00"),
        "length below the header": (frame, 18, b"\x00\x08"),
        "version": (frame, 14, b"\x40"),
        "group as sender": (reply, 22, b"\x01"),
        "no sender": (reply, 22, bytes(6)),
        "hardware": (reply, 15, b"\x06"),
        "protocol": (reply, 16, b"\x86\xdd"),
        "operation": (reply, 21, b"\x08"),
        "sender 0.0.0.0": (reply, 28, bytes(4)),
        "EtherType": (reply, 12, b"\x81\x00"),
    }
    for name, (whole, offset, value) in changes.items():
        changed = whole[:offset] + value + whole[offset + len(value) :]
        if name != "checksum" and whole is frame:
            changed = _summed(bytearray(changed))
        assert changed != whole, name
        assert parse_frame(changed) is None, name


def test_no_frame_crashes() -> None:
    """Cut at each length, and with random bytes in random places."""
    chosen = random.Random(117)
    good = [*announcements(IPV4, MAC), *announcements(IPV6, MAC, LINK_LOCAL)]
    for frame in good:
        for length in range(len(frame)):
            assert parse_frame(frame[:length]) is None
    for _ in range(20_000):
        changed = bytearray(chosen.choice(good))
        for _ in range(chosen.randrange(1, 8)):
            changed[chosen.randrange(len(changed))] = chosen.randrange(256)
        found = parse_frame(bytes(changed))
        assert found is None or (found.address and len(found.mac) == 17)
        parse_frame(chosen.randbytes(chosen.randrange(120)))


def _sum(frame: bytes) -> int:
    """The one's complement sum of an ICMPv6 message with its pseudo header (RFC 8200, 8.1), worked
    out in another way than in the program: it is 0xffff if the checksum is right."""
    data = frame[22:54] + len(frame[54:]).to_bytes(4) + (58).to_bytes(4) + frame[54:]
    return int.from_bytes(data) % 0xFFFF or 0xFFFF


def _summed(frame: bytearray) -> bytes:
    """The same frame with a right checksum."""
    frame[56:58] = bytes(2)
    frame[56:58] = (0xFFFF - _sum(bytes(frame)) % 0xFFFF).to_bytes(2)
    return bytes(frame)
