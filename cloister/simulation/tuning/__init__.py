"""Chooses settings of a recipe by many simulations, scored on a public validation file."""
