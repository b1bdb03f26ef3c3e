"""uproxy: every Kubernetes Service reachable on a node, from userspace."""

__version__ = "0.1.0"
