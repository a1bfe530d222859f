"""Copies a run's folder to a URL while it works on this machine, and fetches it for reading."""
