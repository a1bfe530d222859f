"""What a site computes in a round: batches, per-record gradients and steps, without
communication."""
