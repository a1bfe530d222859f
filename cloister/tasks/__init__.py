"""Tasks: how a record becomes tokens, what its loss is and how a model is scored."""
