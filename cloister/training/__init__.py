"""Computes a site's round: batches, per-record gradients and steps, without communication."""
