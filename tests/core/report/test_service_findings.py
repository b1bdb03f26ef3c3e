"""What is said about the Services of manifests, and where."""

from __future__ import annotations

import textwrap

import pytest

from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.service_findings import service_findings
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable
from uproxy.sources.manifests.catalog import Catalog
from uproxy.sources.manifests.file import read_manifest


def found(text: str, **options: object) -> list[str]:
    """The findings about the manifests of one file, without its name."""
    catalog = Catalog()
    content = read_manifest("x", textwrap.dedent(text).encode())
    assert not content.errors
    catalog.update({"x": content})
    state = ClusterState(("manifests",), node_name="here")
    state.replace("manifests", catalog.objects())
    settings = {"nodeport_addresses": ("0.0.0.0",), "external_ip_addresses": frozenset[str]()}
    made = RoutingOptions(serve_unallocated=True, **{**settings, **options})  # type: ignore[arg-type]
    table = build(state, made, RoutingTable(), ())
    return [
        f"{each.line} {each.severity} {each.text}"
        for some in service_findings(state, table, catalog.locate)
        for each in some
    ]


def service(name: str = "web", spec: str = "", annotations: str = "{}", port: int = 80) -> str:
    """A Service in nine lines; its port is in line 8, its annotations are in line 3."""
    return (
        "apiVersion: v1\nkind: Service\n"
        f"metadata: {{name: {name}, annotations: {annotations}}}\n"
        "spec:\n  type: NodePort\n"
        f"  <<: {{{spec}}}\n"
        "  ports:\n"
        f"  - {{name: http, port: {port}, nodePort: 30080}}\n"
        "---\n"
    )


def endpoints(
    name: str = "web",
    ports: str = "{name: http, port: 9000}",
    addresses: str = "{addresses: [10.0.0.1], nodeName: here}",
    label: str = "kubernetes.io/service-name",
) -> str:
    return (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}-1, labels: {{{label}: {name}}}}}\n"
        f"addressType: IPv4\nports: [{ports}]\nendpoints: [{addresses}]\n---\n"
    )


WEB = "Service default/web"
PORT = f"{WEB}: spec.ports[0]"
ANNOTATION = f"{WEB}: metadata.annotations[uproxy.dev"
GOOD = service() + endpoints()
ROWS = [
    pytest.param(GOOD, [], id="served"),
    pytest.param(service(spec="clusterIP: None"), [], id="headless: meant so"),
    pytest.param(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {type: ExternalName, externalName: a.example.com}\n",
        [],
        id="ExternalName: meant so",
    ),
    pytest.param(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n"
        "  labels: {service.kubernetes.io/service-proxy-name: other}\n",
        [],
        id="for another proxy: meant so",
    ),
    pytest.param(
        service(),
        [
            f"8 error {PORT}: no endpoints: no EndpointSlice has the label "
            "kubernetes.io/service-name: web, and there are no Endpoints of its name"
        ],
        id="no endpoints",
    ),
    pytest.param(
        service(spec="selector: {app: web}"),
        [
            f"8 error {PORT}: no endpoints: no EndpointSlice has the label "
            "kubernetes.io/service-name: web, and there are no Endpoints of its name; "
            "without a cluster, its selector finds no pods"
        ],
        id="a selector, and no cluster",
    ),
    pytest.param(
        service()
        + endpoints(ports="{name: htpt, port: 9000}, {name: http, port: 1, protocol: UDP}"),
        [
            f'8 error {PORT}: no endpoints: its EndpointSlices have no port "http"/TCP; '
            'they have "htpt"/TCP, "http"/UDP'
        ],
        id="a port of another name",
    ),
    pytest.param(
        service() + endpoints(ports="{port: 9000}"),
        [
            f'8 error {PORT}: no endpoints: its EndpointSlices have no port "http"/TCP; they have '
            'one without a name; give that the name "http", without one it is not for Services'
        ],
        id="a port without a name",
    ),
    pytest.param(
        service() + endpoints(ports=""),
        [
            f'8 error {PORT}: no endpoints: its EndpointSlices have no port "http"/TCP; '
            "they have none"
        ],
        id="no port",
    ),
    pytest.param(
        service() + endpoints(addresses=""),
        [f"8 error {PORT}: no endpoints: there are none in its EndpointSlices"],
        id="an empty slice",
    ),
    pytest.param(
        service() + "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets:\n"
        "- {addresses: [{ip: 10.0.0.1}], ports: [{name: web, port: 1}]}\n",
        [
            f'8 error {PORT}: no endpoints: its Endpoints have no port "http"/TCP; '
            'they have "web"/TCP'
        ],
        id="Endpoints with a port of another name",
    ),
    pytest.param(
        service(spec="clusterIP: 'fd00::1', ipFamilies: [IPv6]") + endpoints(),
        [f"8 error {PORT}: no endpoints of this family: those of its EndpointSlices are IPv4"],
        id="endpoints of the other family",
    ),
    pytest.param(
        service() + endpoints(addresses="{addresses: [10.0.0.1], conditions: {ready: false}}"),
        [f"8 warning {PORT}: no ready endpoints"],
        id="not ready: that may pass",
    ),
    pytest.param(
        service(spec="externalTrafficPolicy: Local")
        + endpoints(addresses="{addresses: [10.0.0.1], nodeName: there}"),
        [
            f"8 warning {PORT}: externalTrafficPolicy is Local and this node has no endpoint; "
            "only this node and its pods are served; "
            "this is node here, unless you set --hostname-override"
        ],
        id="policy Local, and another node",
    ),
    pytest.param(
        GOOD + service("other") + endpoints("other"),
        [
            f"8 error {PORT}: 0.0.0.0:30080/TCP is served for default/other:http, and not for "
            "this one (see x:24)"
        ],
        id="a NodePort that another Service has",
    ),
    pytest.param(
        service(spec="externalIPs: [192.0.2.1]") + endpoints(),
        [
            f"1 warning {WEB}: externalIP 192.0.2.1 is not an address of this node; "
            "allow it with --external-ip-cidrs 192.0.2.1/32"
        ],
        id="a part is not served",
    ),
    pytest.param(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {externalIPs: [192.0.2.1], "
        "ports: [{port: 80}]}\n",
        [
            f"1 error {WEB}: externalIP 192.0.2.1 is not an address of this node; "
            "allow it with --external-ip-cidrs 192.0.2.1/32"
        ],
        id="nothing is served",
    ),
    pytest.param(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: LoadBalancer\n"
        "  ports: [{port: 80}]\n",
        [
            f"1 error {WEB}: it has no clusterIP, externalIP, load-balancer IP or nodePort to "
            "listen on; with --lb it gets an address"
        ],
        id="a load balancer without an address",
    ),
    pytest.param(
        service(spec="clusterIP: 10.96.0.1").replace(", nodePort: 30080", "") + endpoints(),
        [
            f'8 warning {PORT}: port "http": type is NodePort; set nodePort, '
            "which only an API server assigns"
        ],
        id="no nodePort",
    ),
    pytest.param(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n",
        [f"1 error {WEB}: spec.ports is empty"],
        id="no ports",
    ),
    pytest.param(
        service(annotations='{uproxy.dev/proxy-protocol: "3"}') + endpoints(),
        [
            f'3 error {ANNOTATION}/proxy-protocol]: is "3", so clients of TCP ports are refused; '
            "use one of: v1, v2"
        ],
        id="an annotation because of which clients are refused",
    ),
    pytest.param(
        service(annotations="{uproxy.dev/balancer: fast, uproxy.dev/blancer: random}")
        + endpoints(),
        [
            f'3 warning {ANNOTATION}/balancer]: is "fast", so it is ignored; '
            "use one of: round-robin, random, least-connections",
            f"3 warning {ANNOTATION}/blancer]: is not known, so it is ignored; "
            'did you mean "uproxy.dev/balancer"?',
        ],
        id="annotations that are ignored",
    ),
    pytest.param(
        GOOD + endpoints("wbe"),
        [
            "17 warning EndpointSlice default/wbe-1: metadata.labels[kubernetes.io/service-name]: "
            'there is no Service default/wbe; did you mean "web"?'
        ],
        id="a slice of no Service",
    ),
    pytest.param(
        endpoints(label="service-name"),
        [
            "1 warning EndpointSlice default/web-1: metadata.labels[kubernetes.io/service-name]: "
            "it is missing, so these endpoints belong to no Service"
        ],
        id="a slice without the label",
    ),
    pytest.param(
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\n",
        ["1 warning Endpoints default/web: metadata.name: there is no Service default/web"],
        id="Endpoints of no Service",
    ),
]


@pytest.mark.parametrize(("text", "expected"), ROWS)
def test_findings(text: str, expected: list[str]) -> None:
    assert found(text) == expected


def test_why_a_service_gets_no_address() -> None:
    text = """\
        apiVersion: v1
        kind: Service
        metadata: {name: web}
        spec: {type: LoadBalancer, ports: [{port: 80}]}
        status:
          conditions:
          - {type: uproxy.dev/AddressAssigned, status: "False", message: the pool is full}
        """
    assert found(text, assigning=Assigning.POOLS) == [
        f"1 error {WEB}: no address of a load balancer: the pool is full"
    ]


def test_a_service_of_many_frontends_is_said_to_be_in_conflict_once() -> None:
    both = {"nodeport_addresses": ("0.0.0.0", "127.0.0.1", "192.0.2.1")}
    text = GOOD + service("other") + endpoints("other")
    assert len(found(text, **both)) == 1
