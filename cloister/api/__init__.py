"""The Python API: the names that `import cloister` offers, over the rooms that do the work."""
