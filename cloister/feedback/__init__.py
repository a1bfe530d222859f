"""Feedback on a model's answers: the site stores it, reviews it and exports it as records."""
