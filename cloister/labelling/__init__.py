"""Labels that people at an institution give to its records, and how far they agree."""
