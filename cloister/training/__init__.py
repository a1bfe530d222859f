"""A site's computations in a round: batches, per-record gradients, steps; no communication."""
