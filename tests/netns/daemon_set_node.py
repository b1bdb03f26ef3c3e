"""A node that runs what a DaemonSet says, in a user namespace with a network of its own.

`python -m tests.netns.daemon_set_node DIR`, with the container's arguments and variables as JSON on
standard input. It prints as JSON what of two Services is served: "plain", and "labelled", which has
the label service-proxy-name.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.pods import pod, visit
from tests.e2e.program import endpoints, service, wait_for
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.server import FakeApi
from tests.fake_api.threads import ThreadedApi, in_thread

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
CLUSTER_IPS = {"plain": "10.96.0.10", "labelled": "10.96.0.11"}
NODE_PORTS = {"plain": 30080, "labelled": 30081}
LABEL = {"service.kubernetes.io/service-proxy-name": "uproxy"}


def a_service(name: str) -> dict[str, Any]:
    ports = [{"name": "main", "port": 80, "nodePort": NODE_PORTS[name]}]
    data = service(name, ports=ports, clusterIP=CLUSTER_IPS[name])
    data["metadata"]["labels"] = LABEL if name == "labelled" else {}
    return data


def apply(api: ThreadedApi, objects: Sequence[dict[str, Any]]) -> None:
    api.call(lambda server: server.apply(*objects))


def answer(address: str, port: int) -> str:
    """Which pod answers; "" if none does."""
    with contextlib.suppress(OSError):
        return visit(address, port)
    return ""


def main(folder: Path) -> None:
    asked = json.load(sys.stdin)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Without a route, a ClusterIP that is not served would not even be tried.
    subprocess.run(["ip", "route", "add", "unreachable", "10.96.0.0/16"], check=True)
    with pod("plain") as plain, pod("labelled") as labelled, in_thread(FakeApi()) as api:
        for each in (plain, labelled):
            objects = [NODE, a_service(each.name), *endpoints(each.name, [each])]
            apply(api, objects)
        kubeconfig = write_kubeconfig(folder / "kubeconfig", api.url)
        arguments = [*asked["args"], f"--kubeconfig={kubeconfig}"]
        with uproxy(arguments, asked["env"], asked["wrapper"]) as says:
            sys.stdout.write(
                json.dumps(
                    {
                        "clusterIP": [answer(each, 80) for each in CLUSTER_IPS.values()],
                        "nodePort": [answer("127.0.0.1", each) for each in NODE_PORTS.values()],
                        "status": says("status", "-o", "json"),
                    }
                )
            )


@contextmanager
def uproxy(
    arguments: Sequence[str], env: Mapping[str, str], wrapper: Sequence[str]
) -> Iterator[Any]:
    """A running uproxy; what is given asks it by the commands of its container."""
    command = [*wrapper, sys.executable, "-m", "uproxy.cli"]
    environ = {**os.environ, **env}
    health = env["UPROXY_HEALTHZ_BIND_ADDRESS"].replace("0.0.0.0", "127.0.0.1")

    def ready() -> bool:
        # An HTTPError is an OSError, too.
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{health}/readyz", timeout=5).close()
            return True
        return False

    def says(*question: str) -> Any:
        done = subprocess.run([*command, *question], env=environ, capture_output=True, check=True)
        return json.loads(done.stdout)

    process = subprocess.Popen([*command, *arguments], env=environ)
    try:
        wait_for("uproxy is ready", ready, 60)
        yield says
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
