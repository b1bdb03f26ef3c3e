"""Addresses for Services of type LoadBalancer: handing them out, and announcing them."""
