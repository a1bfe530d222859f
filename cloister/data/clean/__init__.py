"""A file of records written anew with clean texts, and a log of every change."""
