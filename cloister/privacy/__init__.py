"""What makes a release private, and what it costs."""
