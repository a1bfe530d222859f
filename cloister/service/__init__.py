"""Serves a finished adapter over HTTP: queue, batches, callers' tokens, OpenAI's format, a page."""
