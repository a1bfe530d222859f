"""Documents for people who file them: what a report says, and how it becomes HTML or PDF."""
