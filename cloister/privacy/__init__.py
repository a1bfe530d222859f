"""The mechanism (sampling, clipping, noise), the plan that fixes it, and its accountants."""
