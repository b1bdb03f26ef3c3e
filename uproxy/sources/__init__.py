"""Sources of cluster objects: the Kubernetes API, manifests, and the last-known state."""
