"""In which namespace nodes agree, by Leases, who hands out and who announces addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from uproxy.apiserver.discovery import SERVICE_ACCOUNT
from uproxy.config.load_balancer import parse_named_namespace

_DEFAULT: Final = "kube-system"


def lease_namespace(configured: str, service_account: Path = SERVICE_ACCOUNT) -> str:
    """The configured one, or else that of the Pod, whose role covers it, or else kube-system."""
    if configured:
        return configured
    try:
        return parse_named_namespace((service_account / "namespace").read_text())
    except (OSError, ValueError):
        return _DEFAULT
