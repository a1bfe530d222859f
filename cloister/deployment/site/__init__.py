"""What a site's operator runs: agent and service, approvals, backup, doctor."""
