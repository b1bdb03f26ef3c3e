"""The HTTP servers of the control process: health, metrics, status."""
