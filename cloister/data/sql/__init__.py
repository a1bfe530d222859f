"""Writes the rows of a database query as a file of records, over a connection that cannot write."""
