"""What a site's operator runs: the agent and its service, approvals, backups, and checks."""
