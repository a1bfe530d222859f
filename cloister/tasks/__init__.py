"""Tasks: how a record becomes tokens, the loss of a record, and the scores of a model."""
