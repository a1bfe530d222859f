"""Makes a finished model smaller: prunes layers, heads and weights, or distils into a student."""
