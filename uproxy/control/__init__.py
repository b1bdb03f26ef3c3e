"""The control process, which compares what the cluster wants with what is open, and makes it so."""
