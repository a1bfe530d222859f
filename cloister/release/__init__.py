"""A finished adapter on disk."""
