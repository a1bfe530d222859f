"""The frozen base with what is trained on it."""
