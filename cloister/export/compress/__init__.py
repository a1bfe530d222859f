"""A finished model made smaller: fewer layers and heads, fewer weights, a student taught by it."""
