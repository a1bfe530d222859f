"""Writes synthetic records and their certificate: with a privately fine-tuned language model, or by
private votes for public texts."""
