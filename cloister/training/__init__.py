"""What a site computes, without a network."""
