"""Writes a new file of records with clean texts, and a log of every change."""
