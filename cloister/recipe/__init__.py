"""Reads a study from TOML as one frozen value, and writes its document and hash."""

from cloister.recipe.read import parse_recipe, read_recipe, read_run_recipe, read_tables, validated
from cloister.recipe.rules import warnings
from cloister.recipe.schema import DEFAULT_SHA256, Recipe
from cloister.recipe.sent import parse_document, sent_document

__all__ = [
    "DEFAULT_SHA256",
    "Recipe",
    "parse_document",
    "parse_recipe",
    "read_recipe",
    "read_run_recipe",
    "read_tables",
    "sent_document",
    "validated",
    "warnings",
]
