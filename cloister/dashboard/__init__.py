"""Read-only pages and metrics of runs, for coordinators, operators and auditors."""
