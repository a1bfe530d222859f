"""Explains a finished model's answers: attributions, their faithfulness, and edits of the input."""
