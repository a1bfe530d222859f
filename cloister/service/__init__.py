"""A finished adapter behind HTTP: queue and batches, callers' tokens, OpenAI's form, and a page."""
