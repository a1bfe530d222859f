"""What a stranger can check: bundles of certificates, their verification, and reports to file."""
