"""A round to charge, and the bytes that may leave after the charge."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind


@dataclass(frozen=True, kw_only=True)
class Charge:
    """A round that a site is asked to run.

    Attributes:
        study: Digest of the study's recipe.
        round: From 1.
        plan: The plan that runs.
        request: SHA-256 of the coordinator's request; the same round with another request is
            refused.
        is_private: Whether its randomness is unpredictable; otherwise it is charged as ε = ∞.
        couples_units: Whether a step that made the data's file looked at more than one unit, so
            that ε is about the units of the file as it was written. No rule of the budget reads it.
        units: With correlated noise, the fingerprint of the key by which units have their groups.
        kind: Whether the round is trained, the adapter after it evaluated, or units vote in it.
    """

    study: str
    round: int
    plan: Plan
    request: str
    is_private: bool = True
    couples_units: bool = False
    units: str = ""
    kind: ReleaseKind = ReleaseKind.TRAINING

    @classmethod
    def first(cls, study: str, plan: Plan) -> Charge:
        """Returns a study's first charge, to ask whether a ledger covers it: nothing is charged.

        Args:
            study: Digest of the study's recipe.
            plan: The plan that would run.
        """
        kind, _ = plan.listed[0]
        private = plan.is_private
        return cls(study=study, round=1, plan=plan, request="", is_private=private, kind=kind)


@dataclass(frozen=True)
class Released:
    """Bytes that may leave: the ledger has their release, or no record was used for them.

    Attributes:
        payload: The bytes.
        head: SHA-256 of the release's entry; empty if no record was used.
    """

    payload: bytes
    head: str
