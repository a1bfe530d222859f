"""Reports on a finished model: explanations, robustness, and differences between groups."""
