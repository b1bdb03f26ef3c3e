"""What has to be true before a version is released, checked by `make release-check`."""
