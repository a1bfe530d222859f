"""The charge of what a coordinator asks for, before any record is looked at."""

from __future__ import annotations

from cloister.adapter.wire import digest
from cloister.client.admission import Admitted
from cloister.ledger.charge import Charge
from cloister.privacy.entropy import Entropy
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundRequest


def asked_charge(
    admitted: Admitted, request: RoundRequest, entropy: Entropy, asked: bytes, kind: ReleaseKind
) -> Charge:
    """Returns the charge of one release.

    Args:
        admitted: The site and its plan.
        request: The question.
        entropy: The source of the release's noise.
        asked: The bytes by which a question that is asked again is known.
        kind: What is released.
    """
    site = admitted.site
    trains = kind is ReleaseKind.TRAINING
    return Charge(
        study=site.study,
        round=request.round,
        plan=admitted.plan,
        request=digest(asked),
        is_private=entropy.is_private,
        couples_units=site.couples_units,
        units=site.banding.key if trains and site.banding is not None else "",
        kind=kind,
    )
