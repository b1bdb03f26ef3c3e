"""Objects from manifests in files and directories, which are followed while they change."""
