"""Servers that read PROXY headers, from Debian: each answers with what it has learnt."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

PATIENCE = 20.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend main
    bind 127.0.0.1:{port} accept-proxy
    bind [::1]:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%ci %cp %fi %fp"
"""
_NGINX = """\
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        listen [::1]:{port} proxy_protocol;
        return 200 "$proxy_protocol_addr $proxy_protocol_port \
$proxy_protocol_server_addr $proxy_protocol_server_port";
    }}
}}
"""

RECEIVERS = ("haproxy", "nginx")


def needs(receiver: str) -> pytest.MarkDecorator:
    missing = shutil.which(receiver, path=_PATH) is None
    return pytest.mark.skipif(missing, reason=f"needs {receiver} (Debian: {receiver})")


@contextmanager
def receiving(receiver: str, directory: Path) -> Iterator[int]:
    """Run one on 127.0.0.1 and ::1; yields the port."""
    port = free_port()
    path = directory / "receiver.conf"
    text = _HAPROXY if receiver == "haproxy" else _NGINX
    path.write_text(text.format(port=port, directory=directory))
    command = [shutil.which(receiver, path=_PATH) or receiver, *_arguments(receiver, path)]
    log = directory / "receiver.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_listening(process, port, log)
        yield port
    finally:
        process.kill()
        process.wait()


def _arguments(receiver: str, path: Path) -> Sequence[str]:
    if receiver == "haproxy":
        return ("-db", "-f", str(path))
    return ("-c", str(path), "-p", str(path.parent), "-e", "stderr")


def _wait_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    for host in ("127.0.0.1", "::1"):
        while True:
            try:
                socket.create_connection((host, port), 1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.01)


def get(sock: socket.socket, start: bytes = b"") -> list[str]:
    """Words of the answer to an HTTP request, after `start`."""
    sock.settimeout(PATIENCE)
    sock.sendall(start + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while more := sock.recv(65536):
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return body.decode().split()
