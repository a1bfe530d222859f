"""Records: read from files or a hub, checked, or generated."""
