"""Writes a finished model in formats that load without Cloister: one file for each format."""
