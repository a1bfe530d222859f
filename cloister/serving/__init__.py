"""Predicts with a finished adapter: loads base, adapter and head, and returns predictions."""
