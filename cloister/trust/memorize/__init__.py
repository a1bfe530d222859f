"""Measures what a finished model memorized, by planted canaries and continued private replies."""
