"""What a finished model memorized: planted canaries, and private replies that it continues."""
