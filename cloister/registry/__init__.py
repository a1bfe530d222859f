"""Keeps versions of finished models and who promoted which, in a folder or at an fsspec URL."""
