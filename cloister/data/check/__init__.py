"""Reports what a file of records holds and what looks wrong in it, for the operator who owns it."""
