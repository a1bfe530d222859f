"""Makes the plan of a study of votes from declared constants alone."""

from __future__ import annotations

from dataclasses import replace

from cloister.errors import UsageError
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.plan import Plan, make_plan
from cloister.privacy.votes import BOUND, HISTOGRAM

NOT_SHARED = (
    '"shared" given; rounds of votes have no secure aggregation, and without it a share of the '
    "noise would hide no site's counts: leave it out, so that each site adds all of its own noise"
)


def vote_plan(config: PrivacyConfig, *, public_records: int, candidates: int, rounds: int) -> Plan:
    """Solves for the noise multiplier of all rounds together, and returns the plan.

    Args:
        config: The `[privacy]` section.
        public_records: The site's declared, public number of units.
        candidates: Number of candidates of a round.
        rounds: Number of rounds.

    Raises:
        UsageError: The section asks for no privacy, or for what votes do not have.
        RefusedError: No amount of noise meets the target.
    """
    _check(config)
    alone = replace(config, max_grad_norm=BOUND)
    plan = make_plan(
        alone,
        public_records=public_records,
        expected_batch_size=public_records,
        local_steps=1,
        num_rounds=rounds,
        sites=1,
    )
    message = ((HISTOGRAM, (candidates,)),)
    return replace(plan, max_update_norm=None, votes=candidates, message=message)


def _check(config: PrivacyConfig) -> None:
    if not config.enabled or config.noise_multiplier == 0:
        raise UsageError(
            "privacy.enabled: votes without noise would show which private records there are; "
            "leave it out, and state privacy.epsilon or a privacy.noise_multiplier above 0"
        )
    if config.noise == "shared":
        raise UsageError(f"privacy.noise: {NOT_SHARED}")
    if config.noise_bands is not None or config.evaluation_rounds is not None:
        raise UsageError(
            "privacy.noise_bands, privacy.evaluation_rounds: votes have neither, as nothing is "
            "trained; leave them out"
        )
    if config.site_epsilon is not None:
        raise UsageError(
            "privacy.site_epsilon: the noise of votes hides units and not a whole site; leave it "
            "out"
        )
