"""The value that travels between sites and coordinator."""
