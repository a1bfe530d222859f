"""A site's ledger: what its records were charged, signed entry by entry, and what it adds up to."""
