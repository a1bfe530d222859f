"""Finds personal identifiers in texts by rules, and replaces them by typed placeholders."""
