"""Lets people at an institution label its records, and measures how far they agree."""
