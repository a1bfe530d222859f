"""Programs and files of a coordinator: service, gate, executor, members, runs."""
