"""Rows of a database's query as a file of records, under a connection that cannot write."""
