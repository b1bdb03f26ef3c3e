"""What is said of a process that has ports which uproxy needs."""

from __future__ import annotations

import pytest

from uproxy.core.report.port_conflicts import Taken, conflict_text, rules_text

MANY = [f"127.0.0.1:{port}/TCP for default/web" for port in range(20)]
HEALTH, METRICS = "the health address", "the metrics address"


def test_a_kube_proxy_that_leaves_our_services_alone_is_like_any_program() -> None:
    text = conflict_text("kube-proxy", 7, "root", Taken([], [HEALTH]), apart=True)
    assert "rules" not in text
    assert "use other addresses (--healthz-bind-address" in text


def test_rules_that_are_in_the_way() -> None:
    assert rules_text("kube-proxy in mode ipvs (interface kube-ipvs0)") == (
        "kube-proxy in mode ipvs (interface kube-ipvs0) serves Services on this node, too; its "
        "rules take the packets of Services before uproxy gets them: stop it, and remove them with "
        "kube-proxy --cleanup"
    )


@pytest.mark.parametrize(
    ("program", "process", "user", "taken", "text"),
    [
        pytest.param(
            "uproxy",
            42,
            "root",
            Taken(MANY, [HEALTH, METRICS]),
            "another uproxy (process 42) has the ports of 20 frontends, the health address and the "
            "metrics address; stop it, or give each Services (--service-proxy-name) or addresses "
            "(--nodeport-addresses, --healthz-bind-address, --metrics-bind-address) of its own",
            id="uproxy",
        ),
        pytest.param(
            "uproxy",
            0,
            "root",
            Taken(MANY, []),
            "another uproxy has the ports of 20 frontends; stop it, or give each Services "
            "(--service-proxy-name) or addresses (--nodeport-addresses) of its own",
            id="uproxy-of-another-user",
        ),
        pytest.param(
            "uproxy",
            42,
            "",
            Taken([], [HEALTH]),
            "another uproxy (process 42) has the port of the health address; stop it, or give each "
            "addresses (--healthz-bind-address, --metrics-bind-address) of its own",
            id="uproxy-health",
        ),
        pytest.param(
            "kube-proxy",
            7,
            "root",
            Taken([], [HEALTH, METRICS]),
            "kube-proxy (process 7) has the ports of the health address and the metrics address; "
            "its rules take the packets of Services before uproxy gets them: stop it, and remove "
            "them with kube-proxy --cleanup",
            id="kube-proxy",
        ),
        pytest.param(
            "nginx",
            7,
            "root",
            Taken(["127.0.0.1:80/TCP for default/web"], []),
            "nginx (process 7) has the port of 127.0.0.1:80/TCP for default/web; stop it, or "
            "change the ports of the Services; uproxy keeps trying",
            id="one-frontend",
        ),
        pytest.param(
            "nginx",
            7,
            "root",
            Taken([], [METRICS]),
            "nginx (process 7) has the port of the metrics address; stop it, or use other "
            "addresses (--healthz-bind-address, --metrics-bind-address); uproxy keeps trying",
            id="metrics",
        ),
        pytest.param(
            "",
            0,
            "root",
            Taken(MANY[:2], []),
            "a process of the user root has the ports of 127.0.0.1:0/TCP for default/web and "
            "127.0.0.1:1/TCP for default/web; as root, ss -ltnup says which process has them; "
            "uproxy keeps trying",
            id="unknown",
        ),
        pytest.param(
            "", 0, "", Taken(MANY, []), "another process has the ports of 20", id="nothing-known"
        ),
    ],
)
def test_text(program: str, process: int, user: str, taken: Taken, text: str) -> None:
    assert conflict_text(program, process, user, taken).startswith(text)
