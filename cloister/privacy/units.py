"""What an ε is about: whose data, which neighbours, against whom. No ε is shown without these."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """Whose presence is hidden."""

    RECORD = "record"
    PERSON = "person"


class Neighbouring(StrEnum):
    """Which data sets must be hard to tell apart."""

    ADD_REMOVE = "add-remove"


class Adversary(StrEnum):
    """Who looks at what leaves a site."""

    COORDINATOR = "coordinator"
    OTHER_SITES = "other-sites"
    PUBLIC = "public"
