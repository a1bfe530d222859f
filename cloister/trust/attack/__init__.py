"""Measures a finished model's score on public test texts that are disturbed on purpose."""
