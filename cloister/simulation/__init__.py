"""Whole studies on one machine."""
