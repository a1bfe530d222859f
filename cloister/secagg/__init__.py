"""Secure aggregation: a coordinator learns the sum of what sites send, and nothing else of it."""
