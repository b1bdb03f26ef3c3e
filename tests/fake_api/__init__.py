"""A Kubernetes API server for tests: what uproxy uses of one, and everything that goes wrong."""
