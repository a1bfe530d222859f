"""Programs for a site's operator: agent and service, approvals, backup, doctor."""
