"""A node in a user namespace, as rootlesskit makes it: `python -m tests.netns.rootless_node DIR`.

It runs uproxy there, and prints as JSON what a client gets, and what is left afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.pods import pod, visit
from tests.e2e.program import endpoints, program, service, write

NODE_IP = "10.41.0.100"
"""Where slirp4netns puts the node."""
CLUSTER_IP = "10.43.0.10"


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def main(folder: Path) -> None:
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{NODE_IP}/32", "dev", "lo")
    # No other process of this namespace has ports.
    ports = [{"name": "main", "port": 80, "nodePort": 30080}]
    with pod("a") as a:
        write(folder, "web.yaml", service("web", ports=ports, clusterIP=CLUSTER_IP))
        write(folder, "slices.yaml", *endpoints("web", [a]))
        with program(folder, "--claim-addresses=auto") as running:
            answers = {
                "clusterIP": visit(CLUSTER_IP, 80),
                "nodePort": visit(NODE_IP, 30080),
                "engines": [each["engine"] for each in running.status()["workers"]],
            }
    left = ip("route", "show", "table", "local", "proto", "117")
    sys.stdout.write(json.dumps({**answers, "left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
