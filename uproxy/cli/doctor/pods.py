"""Whether pods of this machine see the addresses of clients."""

from __future__ import annotations

from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result, few
from uproxy.cli.doctor.other_programs import kube_proxy


def bridges(machine: Machine) -> Finding:
    name = "pods behind a bridge"
    if not machine.bridges:
        return Finding(name, Result.OK, "this machine has no bridge")
    if not machine.has_pods:
        return Finding(name, Result.OK, "this machine has no pods")
    if not machine.nft or "NET_ADMIN" not in machine.capabilities:
        return Finding(name, Result.OK, "not tried, as that takes nft and CAP_NET_ADMIN")
    if not machine.bridge_rules:
        return Finding(name, Result.OK, "can be shown to each other")
    text = f"pods behind {few(machine.bridges)} see this node's address in place of each other's:"
    advice = "use a kernel whose nftables has the family bridge (CONFIG_NF_TABLES_BRIDGE)"
    return Finding(name, Result.WARN, f"{text} {machine.bridge_rules}", advice)


def bridge_filter(machine: Machine) -> Finding:
    """Without br_netfilter, packets from one port of a bridge to another pass no rules for routed
    packets. The rules of uproxy are of family bridge and work either way (decision 0015), but those
    of kube-proxy translate addresses, and have to see the answers."""
    name = "br_netfilter"
    if not machine.bridges:
        return Finding(name, Result.OK, "this machine has no bridge")
    if machine.number("net.bridge.bridge-nf-call-iptables"):
        return Finding(name, Result.OK, "in use; uproxy works with it and without it")
    if not kube_proxy(machine):
        return Finding(name, Result.OK, "not in use, and uproxy does not need it")
    text = (
        f"not in use, but kube-proxy needs it: its Services give pods behind {few(machine.bridges)}"
        " no answer from backends on the same bridge"
    )
    advice = "modprobe br_netfilter; sysctl net.bridge.bridge-nf-call-iptables=1"
    return Finding(name, Result.WARN, text, advice)


def client_addresses(machine: Machine) -> Finding:
    name = "clients' addresses"
    if not machine.masqueraded:
        running = "userspace" in machine.taken_ports.values()
        text = "pods see those that their Services ask for" if running else "no uproxy runs here"
        return Finding(name, Result.OK, text)
    reasons = [f"{count} because {reason}" for reason, count in machine.masqueraded.items()]
    text = f"some Service ports show this node's address to pods: {'; '.join(reasons[:3])}"
    advice = "uproxy explain SERVICE; docs/client-address.md says what to do"
    return Finding(name, Result.WARN, text + " ..." * (len(reasons) > 3), advice)
