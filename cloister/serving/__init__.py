"""A finished adapter in use: base, adapter and head loaded together, and predictions of them."""
