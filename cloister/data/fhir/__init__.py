"""Reads FHIR resources (R4 and R5, JSON) as records: texts of documents and observations."""
