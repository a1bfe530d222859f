"""Personal identifiers in texts: found by rules, and replaced by typed placeholders."""
