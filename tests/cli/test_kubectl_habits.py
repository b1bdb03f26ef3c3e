"""What people who know kubectl type first, and what they are told."""

from __future__ import annotations

import pytest

from uproxy.cli.kubectl_habits import advice


@pytest.mark.parametrize(
    ("typed", "use"),
    [
        ("get", "uproxy status"),
        ("get svc", "uproxy status"),
        ("get services -A -o json", "uproxy status -A -o json"),
        ("get svc web -n prod -o yaml", "uproxy status web -n prod -o yaml"),
        ("get svc/web", "uproxy status svc/web"),
        ("get endpointslices -n prod", "uproxy status -n prod"),
        ("get --help", "uproxy status"),
        ("get pods -A", "uproxy status"),
        ("get pod/web-7", "uproxy status"),
        ("describe node here", "uproxy explain default/web"),
        ("describe svc/web", "uproxy explain svc/web"),
        ("describe svc web -n prod", "uproxy explain web -n prod"),
        ("describe", "uproxy explain default/web"),
        ("describe svc", "uproxy explain default/web"),
        ("describe svc -n prod", "uproxy explain default/web"),
        ("describe svc web -h", "uproxy explain default/web"),
        ("get svc -l app=$(id)", "uproxy status -l 'app=$(id)'"),
    ],
)
def test_the_command_to_use(typed: str, use: str) -> None:
    words = typed.split()
    assert advice(words) == f'there is no "{words[0]}" here; use "{use}"'


@pytest.mark.parametrize("typed", ["logs", "logs -f", "logs pod/uproxy-x7c2k --previous"])
def test_where_the_log_is(typed: str) -> None:
    said = advice(typed.split())
    assert "uproxy writes its log to stderr" in said
    assert "kubectl logs -n kube-system daemonset/uproxy" in said
