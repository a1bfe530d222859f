"""What is learnt from a record."""
