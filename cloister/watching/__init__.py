"""Watches a finished model's predictions: drift, surges by topic, alerts."""
