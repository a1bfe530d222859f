"""The adapter as a value: its tensors, and its encoding on the wire."""
