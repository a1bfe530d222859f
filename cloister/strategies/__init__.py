"""Strategies: how updates become the next global adapter; one method per file."""
