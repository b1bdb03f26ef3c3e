"""What the control process and the workers both use of the network."""
