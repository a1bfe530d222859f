"""The exchange by which an institution and a coordinator come to trust each other's keys."""
