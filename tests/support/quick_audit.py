"""Audits with the same checks and fewer draws; `cloister audit run` uses the full numbers."""

import pytest

from cloister.audit import mechanism_conformance


def quick_audit(patch: pytest.MonkeyPatch) -> None:
    """Takes releases enough to show 16 bits of seed.

    Fewer steps with records do not do: batches that are cut in training need them all.
    """
    patch.setattr(mechanism_conformance, "DRAWS", 2000)
