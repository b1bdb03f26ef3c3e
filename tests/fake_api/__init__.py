"""A Kubernetes API server for tests: the parts that uproxy uses, and every fault of theirs."""
