"""An ingress controller: nginx behind a load-balancer IP, with two pods behind nginx."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.netns import kit
from tests.netns.kit import Place, World
from tests.netns.node import program, service, slices, write

pytestmark = kit.needs("nginx", "curl", "openssl")

LB_IP, LB_IP6 = "203.0.113.80", "2001:db8:3::80"
HOST = "fruit.example"
CONFIG = """
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 8000;
    listen [::]:8000;
    listen 8443 ssl;
    listen [::]:8443 ssl;
    server_name {host};
    ssl_certificate {directory}/certificate.pem;
    ssl_certificate_key {directory}/key.pem;
    location /apple {{ proxy_pass http://{apple}:8080; }}
    location /banana {{ proxy_pass http://{banana}:8080; }}
    location / {{ return 404; }}
  }}
}}
"""


@contextmanager
def fruit(name: str, place: Place) -> Iterator[None]:
    """A pod that says its name over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"{name}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with place.space.inside():
        server = ThreadingHTTPServer((place.ipv4, 8080), Handler)
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def ingress_controller(world: World, place: Place, directory: Path) -> Iterator[Path]:
    """nginx with a certificate of its own, which is returned."""
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    keys = ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/certificate.pem"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request = ["openssl", "req", "-x509", "-days", "2", *curve, *subject, *keys]
    subprocess.run(request, check=True, capture_output=True)
    apple, banana = (each.ipv4 for each in world.local[:2])
    text = CONFIG.format(directory=directory, host=HOST, apple=apple, banana=banana)
    (directory / "nginx.conf").write_text(text)
    nginx = shutil.which("nginx", path=kit.PATH) or "nginx"
    words = [nginx, "-p", str(directory), "-c", "nginx.conf", "-e", f"{directory}/error.log"]
    process = subprocess.Popen(place.space.command(*words, "-g", "daemon off;"))
    try:
        kit.wait_listening(place.space, place.ipv4, 8443)
        yield directory / "certificate.pem"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def certificate(net: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything runs; this is what TLS clients have to trust."""
    directory = tmp_path_factory.mktemp("ingress")
    manifests = directory / "manifests"
    manifests.mkdir()
    numbers = [
        {"name": "http", "port": 80, "targetPort": 8000, "protocol": "TCP"},
        {"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"},
    ]
    wanted = service(
        "ingress",
        type="LoadBalancer",
        clusterIPs=["203.0.113.1", "2001:db8:3::1"],
        ports=numbers,
        allocateLoadBalancerNodePorts=False,
        status={"loadBalancer": {"ingress": [{"ip": LB_IP}, {"ip": LB_IP6}]}},
    )
    targets = [each | {"port": each["targetPort"]} for each in numbers]
    endpoints = slices("ingress", [(net.local[2], "here", "ready")], ports=targets)
    write(manifests, "ingress.yaml", wanted, *endpoints)
    with ExitStack() as stack:
        for name, place in zip(("apple", "banana"), net.local, strict=False):
            stack.enter_context(fruit(name, place))
        made = stack.enter_context(ingress_controller(net, net.local[2], directory))
        stack.enter_context(program(net.node.space, manifests))
        yield made


def curl(world: World, address: str, url: str, *words: str) -> str:
    host = f"[{address}]" if ":" in address else address
    resolve = [f"{HOST}:{port}:{host}" for port in (80, 443)]
    pinned = [word for each in resolve for word in ("--resolve", each)]
    return world.client.space.run("curl", "-sS", "--max-time", "10", *pinned, *words, url)


@pytest.mark.parametrize("address", [LB_IP, LB_IP6])
@pytest.mark.parametrize("name", ["apple", "banana"])
class TestIngress:
    def test_over_http(self, net: World, certificate: Path, name: str, address: str) -> None:
        assert curl(net, address, f"http://{HOST}/{name}") == f"{name}\n"

    def test_over_tls(self, net: World, certificate: Path, name: str, address: str) -> None:
        """It is nginx that holds the key, so a certificate that fits shows that it was reached."""
        trust = ("--cacert", str(certificate))
        assert curl(net, address, f"https://{HOST}/{name}", *trust) == f"{name}\n"


def test_other_paths_are_for_nginx_to_refuse(net: World, certificate: Path) -> None:
    write_out = ("-o", "/dev/null", "-w", "%{http_code}")
    assert curl(net, LB_IP, f"http://{HOST}/cherry", *write_out) == "404"


def test_a_client_that_does_not_trust_the_certificate(net: World, certificate: Path) -> None:
    with pytest.raises(AssertionError, match="certificate"):
        curl(net, LB_IP, f"https://{HOST}/apple")
