"""Which addresses Services of type LoadBalancer get, and from which pools."""
