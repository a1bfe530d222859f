"""Frozen bases, the adapters and heads that are trained on them, and their folders."""
