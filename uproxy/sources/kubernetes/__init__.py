"""Objects from the Kubernetes API, listed once and then watched."""
