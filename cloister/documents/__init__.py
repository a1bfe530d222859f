"""Cuts an institution's documents into passages, indexes and searches them on its own machine."""
