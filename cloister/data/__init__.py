"""Records: read from disk or a hub, checked, or made up."""
