"""Makes the plan of a study of votes from declared constants alone."""

from __future__ import annotations

from dataclasses import replace

from cloister.errors import UsageError
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.plan import Plan, make_plan
from cloister.privacy.votes import BOUND, votes_shapes


def vote_plan(
    config: PrivacyConfig, *, public_records: int, candidates: int, rounds: int, sites: int
) -> Plan:
    """Solves for the noise multiplier of all rounds together, and returns the plan.

    Args:
        config: The `[privacy]` section.
        public_records: The site's declared, public number of units.
        candidates: Number of candidates of a round.
        rounds: Number of rounds.
        sites: Sites in the study, among which noise may be shared.

    Raises:
        UsageError: The section asks for no privacy, or for what votes do not have.
        RefusedError: No amount of noise meets the target, too few sites share it, or a share of it
            does not fit its bits.
    """
    _check(config)
    alone = replace(config, max_grad_norm=BOUND)
    plan = make_plan(
        alone,
        public_records=public_records,
        expected_batch_size=public_records,
        local_steps=1,
        num_rounds=rounds,
        sites=sites,
    )
    message = tuple(votes_shapes(candidates).items())
    plan = replace(plan, max_update_norm=None, votes=candidates, message=message)
    if plan.sharing is not None:
        plan.shared_vote_noise()
    return plan


def _check(config: PrivacyConfig) -> None:
    if not config.enabled or config.noise_multiplier == 0:
        raise UsageError(
            "privacy.enabled: votes without noise would show which private records there are; "
            "leave it out, and state privacy.epsilon or a privacy.noise_multiplier above 0"
        )
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
