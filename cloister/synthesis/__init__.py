"""Writes synthetic records with a privately fine-tuned language model, and their certificate."""
