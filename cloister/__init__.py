"""Cloister: federated fine-tuning of language models under differential privacy."""

from importlib.metadata import version

__version__ = version("cloister")
