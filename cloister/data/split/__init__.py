"""Splits a file of records into training, validation and test files; no unit is on two sides."""
