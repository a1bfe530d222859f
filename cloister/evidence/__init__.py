"""Makes bundles of certificates, which anybody can verify, and audit reports."""
