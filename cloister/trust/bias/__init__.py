"""Whom a finished model treats worse: rates, errors and calibration by group of persons."""
