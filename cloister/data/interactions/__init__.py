"""Reads files of interactions (person, item, time) and writes one record for each person."""
