"""A finished adapter on disk: its files, its card, and the scripts that load it."""
