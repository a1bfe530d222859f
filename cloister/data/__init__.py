"""Reads records from files or a hub, checks them, changes files of them, and generates some."""
