"""Cluster DNS: two real DNS servers behind kube-dns, asked with dig through the ClusterIP."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.netns import kit
from tests.netns.kit import Place, World
from tests.netns.node import program, service, slices, write

pytestmark = kit.needs("dnsmasq=dnsmasq-base", "dig=bind9-dnsutils")

CLUSTER_IPS = ["203.0.113.53", "2001:db8:3::53"]
PARTS = 30
"""Strings of 200 bytes in the large answer."""


@contextmanager
def dns_server(name: str, place: Place) -> Iterator[None]:
    """dnsmasq, with a record that tells which server has answered, and one of over 4 KiB."""
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
    words += ["--no-resolv", "--no-hosts", "--user=root", "--edns-packet-max=8192"]
    words += [f"--txt-record=who.example,{name}"]
    words += ["--host-record=web.example,203.0.113.80,2001:db8:3::80"]
    words += [f"--txt-record=large.example,{i:03}{'x' * 197}" for i in range(PARTS)]
    process = subprocess.Popen(place.space.command(*words))
    try:
        kit.wait_listening(place.space, place.ipv4, 53)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module", autouse=True)
def served(net: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = tmp_path_factory.mktemp("dns") / "manifests"
    directory.mkdir()
    numbers = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    kube_dns = service("kube-dns", type="ClusterIP", clusterIPs=CLUSTER_IPS, ports=numbers)
    servers = {"one": net.local[0], "two": net.remote[0]}
    places = [(place, "here", "ready") for place in servers.values()]
    write(directory, "dns.yaml", kube_dns, *slices("kube-dns", places, ports=numbers))
    with ExitStack() as stack:
        for name, place in servers.items():
            stack.enter_context(dns_server(name, place))
        stack.enter_context(program(net.node.space, directory))
        yield


def dig(place: Place, server: str, *words: str) -> str:
    return place.space.run("dig", f"@{server}", "+time=3", "+tries=1", *words)


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("server", CLUSTER_IPS)
class TestClusterDns:
    def test_both_servers_answer(self, net: World, server: str, transport: str) -> None:
        answers = [
            dig(net.local[1], server, transport, "+short", "who.example", "TXT").strip()
            for _ in range(4)
        ]
        assert sorted(answers) == ['"one"', '"one"', '"two"', '"two"']

    def test_for_pods_and_for_the_node(self, net: World, server: str, transport: str) -> None:
        for place in (net.local[1], net.node):
            assert dig(place, server, transport, "+short", "web.example", "A") == "203.0.113.80\n"
            assert dig(place, server, transport, "+short", "web.example", "AAAA").split() == [
                "2001:db8:3::80"
            ]

    def test_an_answer_of_over_4_kib(self, net: World, server: str, transport: str) -> None:
        """Over UDP it is one datagram in several fragments, as EDNS allows (RFC 6891)."""
        text = dig(net.local[1], server, transport, "+bufsize=8192", "large.example", "TXT")
        size = re.search(r"MSG SIZE  rcvd: (\d+)", text)
        assert size is not None
        assert int(size[1]) > 4096
        assert len(re.findall(r'"\d{3}x{197}"', text)) == PARTS
        assert f"({'UDP' if transport == '+notcp' else 'TCP'})" in text

    def test_many_at_once(self, net: World, server: str, transport: str) -> None:
        """One dig, one socket for each question: names as resolvers look them up."""
        questions = [word for _ in range(50) for word in ("web.example", "A")]
        answers = dig(net.local[1], server, transport, "+short", *questions).split()
        assert answers == ["203.0.113.80"] * 50


def test_a_truncated_answer_sends_the_client_to_tcp(net: World) -> None:
    """Both protocols have to lead to a server that knows the same."""
    text = dig(net.local[1], CLUSTER_IPS[0], "+bufsize=512", "large.example", "TXT")
    assert "retrying in TCP mode" in text
    assert len(re.findall(r'"\d{3}x{197}"', text)) == PARTS
