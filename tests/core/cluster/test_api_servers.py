"""Where the API servers are, by the EndpointSlices of the Service `kubernetes`."""

from __future__ import annotations

import msgspec
import pytest

from tests.builders import endpoint, endpoint_slice, service
from uproxy.core.cluster.api_servers import api_server_addresses
from uproxy.core.cluster.objects import EndpointPort, EndpointSlice, Object
from uproxy.core.cluster.state import ClusterState

HTTPS = {"https": 6443}


def slice_of(*addresses: str) -> EndpointSlice:
    return endpoint_slice("kubernetes", *addresses, ports=HTTPS)


def test_addresses_of_both_families_in_a_fixed_order() -> None:
    slices = [slice_of("192.0.2.2", "192.0.2.1"), slice_of("2001:DB8::1"), slice_of("192.0.2.1")]
    assert api_server_addresses(slices) == (
        "192.0.2.1:6443",
        "192.0.2.2:6443",
        "[2001:db8::1]:6443",
    )


def test_objects_that_do_not_matter() -> None:
    others: list[Object] = [
        service("kubernetes"),
        endpoint_slice("web", "192.0.2.1", ports=HTTPS),
        endpoint_slice("other/kubernetes", "192.0.2.1", ports=HTTPS),
        slice_of("not an address", "0.0.0.0", "224.0.0.1", "::"),
        endpoint_slice("kubernetes", endpoint("192.0.2.1", ready=False), ports=HTTPS),
        endpoint_slice("kubernetes", "192.0.2.1", ports={}),
    ]
    assert api_server_addresses(others) == ()


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        pytest.param((("", 443),), ("192.0.2.1:443",), id="one without a name"),
        pytest.param((("metrics", 9090), ("https", 6443)), ("192.0.2.1:6443",), id="two"),
        pytest.param((("a", 1), ("b", 2)), (), id="none of two is the API's"),
        pytest.param((("https", None),), (), id="no number"),
    ],
)
def test_the_port_of_the_api(
    ports: tuple[tuple[str, int | None], ...], found: tuple[str, ...]
) -> None:
    known = tuple(EndpointPort(name=name, port=number) for name, number in ports)
    of_kubernetes = msgspec.structs.replace(slice_of("192.0.2.1"), ports=known)
    assert api_server_addresses([of_kubernetes]) == found


def test_the_state_follows_them() -> None:
    state = ClusterState(["api"])
    seen = [state.api_servers]
    for address in ("192.0.2.1", "192.0.2.2"):
        state.apply("api", slice_of(address))
        state.take_dirty()
        seen.append(state.api_servers)
    assert seen == [(), ("192.0.2.1:6443",), ("192.0.2.2:6443",)]
