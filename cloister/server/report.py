"""The figures of a closed round, as the coordinator reports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SetScores = Mapping[str, Mapping[str, float]]  # by public data set, then by metric


@dataclass(frozen=True)
class RoundReport:
    """The figures of a closed round.

    Attributes:
        round: From 1.
        metrics: Scores by set (`test`, `validation`) and name; empty where the round was not
            scored.
        epsilon: ε that each site's ledger promises, as the site states it (`RoundReply.epsilon`);
            ∞ without privacy.
        received: SHA-256 of what each site sent, and of its ledger's entry for it.
        bytes_up: Bytes of all updates received.
        bytes_down: Bytes of the global adapter, times sites.
        seconds: From the first message to the saved state.
        seconds_scoring: The part of `seconds` for evaluation.
        missing: Sites that sent no update, except retired ones.
        retired: Sites whose budget is spent.
        refused: Why a reply does not count, by site.
        update_norm: Norm of the global adapter's change.
        aggregation_error: Relative distance of the global product from the mean of the sites'
            products; None where the method does not aim at the mean, or no product moved.
    """

    round: int
    metrics: SetScores
    epsilon: Mapping[str, float]
    received: Mapping[str, tuple[str, str]]
    bytes_up: int
    bytes_down: int
    seconds: float
    seconds_scoring: float
    missing: tuple[str, ...]
    retired: tuple[str, ...]
    refused: Mapping[str, str]
    update_norm: float
    aggregation_error: float | None
