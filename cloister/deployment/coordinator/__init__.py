"""What a coordinator runs: service, gate, executor, members, runs."""
