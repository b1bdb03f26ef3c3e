"""What runs inside a worker process. It never sees Kubernetes, only routes."""
