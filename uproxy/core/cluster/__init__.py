"""What the cluster says: its objects, and the state that they add up to."""
