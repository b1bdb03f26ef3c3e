"""The two processes of a measurement: the API server and uproxy."""

from __future__ import annotations

import base64
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

_ROOT = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")


class ApiServer:
    """The fake API server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._read()

    def move(self, address: str, port: int) -> float:
        """Give the probe Service another endpoint; returns when that happened."""
        self._write(f"move {address} {port}")
        return float(self._read())

    def churn(self, rate: float) -> None:
        """From now on, change this number of endpoints per second."""
        self._write(f"churn {rate}")

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def api_server(services: int, ports: int) -> Iterator[ApiServer]:
    command = [sys.executable, "-m", "bench.scale.server"]
    command += ["--services", str(services), "--ports", str(ports)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as process:
        try:
            yield ApiServer(process)
        finally:
            process.kill()


class Uproxy:
    """A running uproxy, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], health: int, metrics: int) -> None:
        self.process = process
        self.health = health
        self.metrics = metrics

    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def workers(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(each) for each in task.read_text().split()]

    def cpu(self) -> float:
        """Seconds that the control process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def uproxy(
    directory: Path, url: str, *, workers: int, options: tuple[str, ...] = ()
) -> Iterator[Uproxy]:
    """Started when the context is entered; not waited for."""
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "bench",
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                "clusters": [{"name": "bench", "cluster": {"server": url, **_authority()}}],
                "users": [{"name": "bench", "user": {}}],
            }
        )
    )
    health, metrics = _free_port(), _free_port()
    command = [sys.executable, "-m", "uproxy.cli", "run", "--kubeconfig", str(kubeconfig)]
    command += ["--workers", str(workers), "--hostname-override", "bench-node"]
    command += ["--healthz-bind-address", f"127.0.0.1:{health}"]
    command += ["--metrics-bind-address", f"127.0.0.1:{metrics}"]
    command += ["--drain-timeout", "0s", "--claim-addresses", "never"]
    command += ["--preserve-client-ip", "never", "--state-dir", str(directory / "state"), *options]
    with (directory / "uproxy.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=_ROOT)
        try:
            yield Uproxy(process, health, metrics)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def resident(pid: int) -> float:
    """MiB of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def _authority() -> dict[str, str]:
    """One certificate, as every kubeconfig has it. Without, all those of the system are loaded,
    for a tenth of a second, even though this server speaks plain HTTP."""
    bundle = ssl.get_default_verify_paths().cafile
    if not bundle:
        return {}
    head, end, _ = Path(bundle).read_text().partition("-----END CERTIFICATE-----")
    begin = head.index("-----BEGIN CERTIFICATE-----")
    pem = f"{head[begin:]}{end}\n".encode()
    return {"certificate-authority-data": base64.b64encode(pem).decode()}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
