"""Programs that an institution or a coordinator runs: services, processes and their logs."""
