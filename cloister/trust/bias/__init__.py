"""Measures differences between groups of persons: a model's rates, errors and calibration."""
