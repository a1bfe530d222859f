"""The Python API: what `import cloister` offers, over the rooms that do the work."""
