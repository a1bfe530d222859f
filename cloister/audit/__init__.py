"""Whether the code does what it claims: conformance of each mechanism, attacks, lower bounds."""
