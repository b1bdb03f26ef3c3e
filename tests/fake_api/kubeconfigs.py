"""kubeconfig files for the fake API server, and certificates made with the openssl program."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import yaml


def kubeconfig(url: str, *, user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    """A kubeconfig with one context "test"; `cluster` and `user` in its own words."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "test", "user": user or {}}],
    }


def write_kubeconfig(path: Path, url: str, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump(kubeconfig(url, **settings)))
    return path


class Authority:
    """A certificate authority in a directory: `ca.crt`, and NAME.crt with NAME.key."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        _openssl(
            directory,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test CA"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        self.certificate = directory / "ca.crt"

    def issue(self, name: str, subjects: str = "IP:127.0.0.1,DNS:localhost") -> tuple[Path, Path]:
        """A certificate and its key; `subjects`: which servers may use it."""
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={subjects}\nauthorityKeyIdentifier=keyid\n")
        certificate, key = (self.directory / f"{name}.{suffix}" for suffix in ("crt", "key"))
        _openssl(
            self.directory,
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key.name, "-out", f"{name}.csr", "-subj", f"/CN={name}"),
        )
        _openssl(
            self.directory,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *(
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                extensions.name,
                "-out",
                certificate.name,
            ),
        )
        return certificate, key


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """For a server with this certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
