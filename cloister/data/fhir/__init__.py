"""FHIR resources (R4 and R5, JSON) read as records: texts of documents and observations."""
