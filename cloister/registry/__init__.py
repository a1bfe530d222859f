"""Versions of finished models, and who promoted which: a folder or any fsspec URL."""
