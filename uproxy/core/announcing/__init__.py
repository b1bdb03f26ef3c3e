"""Which node announces an address of a load balancer, when, and until when."""
