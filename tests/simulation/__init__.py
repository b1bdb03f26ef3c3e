"""A simulated kernel for the data plane."""
