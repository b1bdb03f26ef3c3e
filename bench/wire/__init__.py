"""What traffic costs: uproxy and its peers, on one machine, in one run."""
