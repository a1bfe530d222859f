"""How updates become the next global adapter; one method a file."""
