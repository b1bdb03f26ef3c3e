"""Reaching the Kubernetes API server: access, credentials, requests."""
