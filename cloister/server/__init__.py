"""The coordinator's side of a study."""
