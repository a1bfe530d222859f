"""A file of records split into training, validation and test files, no unit on two sides."""
