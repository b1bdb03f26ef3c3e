"""The last-known state of the cluster on disk, served while no API server answers."""
