"""Tasks: each encodes records as tokens, computes a record's loss, and scores a model."""
