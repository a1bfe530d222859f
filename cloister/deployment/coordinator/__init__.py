"""What a coordinator's machine runs and stores: service, gate, executor, members and runs."""
