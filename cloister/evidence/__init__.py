"""Bundles of certificates, their verification by anybody, and audit reports."""
