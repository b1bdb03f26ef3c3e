"""From the cluster's state to routes, and from routes to a plan of what to open and close."""
