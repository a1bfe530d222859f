"""Tests whether the code does what it claims: conformance checks, attacks, lower bounds on ε."""
