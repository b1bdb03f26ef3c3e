#!/usr/bin/env python3
"""Allows io_uring in a seccomp profile: reads one, and writes it with one more rule.

    deploy/seccomp/add_io_uring.py < containerd.json > uproxy.json

It takes the format of the OCI runtime specification, which is that of localhostProfile and of
`crictl inspect ID | jq .info.runtimeSpec.linux.seccomp`: so it also extends what your own container
runtime gives to a container with RuntimeDefault.
"""

import json
import sys

CALLS = ("io_uring_setup", "io_uring_enter", "io_uring_register")


def with_io_uring(profile: dict) -> dict:
    """The same profile with the three calls allowed. Raises ValueError if that cannot be."""
    rules = profile.get("syscalls")
    if not isinstance(rules, list) or "defaultAction" not in profile:
        raise ValueError("this is no seccomp profile: it needs defaultAction and syscalls")
    if "archMap" in profile or any("includes" in rule or "excludes" in rule for rule in rules):
        # containerd would ignore the conditions and allow, for example, mount and bpf to everyone.
        raise ValueError("this is Docker's format, with conditions that kubelet's profiles lack")
    if any(set(CALLS) & set(rule["names"]) for rule in rules):
        raise ValueError("this profile has a rule for io_uring already")
    added = {"names": list(CALLS), "action": "SCMP_ACT_ALLOW"}
    return {**profile, "syscalls": [*rules, added]}


if __name__ == "__main__":
    try:
        text = json.dumps(with_io_uring(json.load(sys.stdin)), indent=2)
    except ValueError as problem:
        sys.exit(f"standard input: {problem}")
    sys.stdout.write(text + "\n")
