"""Enrolment: an institution and a coordinator exchange documents and trust each other's keys."""
