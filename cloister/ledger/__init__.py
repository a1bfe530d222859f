"""A site's ledger: signed entries of what was charged to its records, and their total cost."""
