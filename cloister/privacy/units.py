"""The unit, neighbours and adversary of an ε; no ε is shown without these."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """The unit whose presence is hidden."""

    RECORD = "record"
    PERSON = "person"


class Neighbouring(StrEnum):
    """Which data sets are neighbours, so that they must be hard to distinguish."""

    ADD_REMOVE = "add-remove"


class Adversary(StrEnum):
    """Who sees the releases of a site."""

    COORDINATOR = "coordinator"
    OTHER_SITES = "other-sites"
    PUBLIC = "public"
