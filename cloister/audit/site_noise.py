"""Checks the noise in each site's answer, from the request to the bytes.

A fault of a single site shows neither in the network's gradients nor in the mechanism. Noise that
two sites or two rounds have in common adds up in the mean, or cancels.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from cloister.adapter.wire import decode, encode
from cloister.audit.asked import AskedReleases
from cloister.audit.asked_site import expected_charges
from cloister.audit.audited_site import AuditedSite
from cloister.audit.noise_tests import angle_p
from cloister.audit.recorded_noise import repeated_coins, shares_drawn
from cloister.audit.secure_sums import secure_sums
from cloister.audit.statistics import LEVEL, Check, Floats, exact_check, p_check
from cloister.client.round import answer
from cloister.client.site import Site
from cloister.ledger.ledger import Ledger
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.exchange import RoundRequest
from cloister.recipe import Recipe
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training.config import TrainingConfig

# A noise multiplier so large that records do not show in an update, the clip bound, and the rounds.
LOUD, BOUND, ROUNDS = 1e4, 1e-3, 2
# Values of a sum's noise, enough to notice one missing share of thirty.
COORDINATES = 100_000


def site_noise(recipe: Recipe, audited: AuditedSite, names: tuple[str, ...]) -> list[Check]:
    """Asks every site for rounds, and tests each update's noise against the plan's.

    Args:
        recipe: The study.
        audited: Its site, with synthetic records.
        names: The sites' names.
    """
    if audited.plan.sharing is not None:
        return _noise_of_the_sum(recipe, audited)
    units, workspace = audited.units, audited.workspace
    plan = replace(
        audited.plan,
        noise_multiplier=LOUD,
        max_grad_norm=BOUND,
        max_update_norm=1e6,
        num_rounds=ROUNDS,
        public_records=2 * len(units),
        expected_batch_size=len(units),
    )
    budget = simulated_budget(plan, 1.0)
    training = TrainingConfig(
        mode="local-steps",
        expected_batch_size=len(units),
        local_steps=plan.local_steps,
        learning_rate=1.0,
        schedule="constant",
        physical_batch_tokens=64,
    )
    policy = simulated_policy(recipe, plan, budget, workspace)
    deviation = LOUD * BOUND / len(units) * math.sqrt(plan.local_steps)
    rounds: list[list[Floats]] = [[] for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            site = Site(
                name=name,
                study="audit",
                plan=plan,
                policy=policy,
                training=training,
                units=units,
                unit=plan.unit,
                seed=recipe.study.seed,
                ledger=Ledger.create(Path(folder) / f"{number}.ledger", budget, plan.unit),
            )
            for at in range(ROUNDS):
                request = RoundRequest("audit", at + 1, encode(workspace.whole))
                update = decode(answer(site, workspace, request, lambda: None).delta)
                every = np.concatenate([value.ravel() for value in update.values()])
                rounds[at].append(every.astype(np.float64) / deviation)
    return [_loudness(rounds), _apart(rounds)]


def _loudness(rounds: Sequence[Sequence[Floats]]) -> Check:
    """Tests the size of every answer's noise; all answers share one error level."""
    answers = [answer for of in rounds for answer in of]
    count = min(len(answer) for answer in answers)
    shares = np.array([LEVEL / 2 / len(answers), 1 - LEVEL / 2 / len(answers)])
    low, high = np.sqrt(stats.chi2.ppf(shares, count) / count)
    figures = [float(np.sqrt(np.square(answer).mean())) for answer in answers]
    return Check(
        name="noise at each site",
        law="noise of a site's answer furthest from the plan's σ·C·√steps and its divisor (χ²)",
        figure=max(figures, key=lambda figure: abs(np.log(max(figure, 1e-300)))),
        low=float(low),
        high=float(high),
    )


def _apart(rounds: Sequence[Sequence[Floats]]) -> Check:
    """Checks that answers have no noise in common, between sites and between rounds of equal
    length."""
    lengths = {len(answer) for of in rounds for answer in of}
    groups = [
        np.array([answer for of in rounds for answer in of if len(answer) == length])
        for length in sorted(lengths)
    ]
    return p_check(
        "noise of different sites",
        "angles between the noise of all sites' answers in all rounds",
        [p for group in groups for p in angle_p(group)],
    )


def _noise_of_the_sum(recipe: Recipe, audited: AuditedSite) -> list[Check]:
    """Asks all sites for secure sums and tests the sums' noise against that of all shares (χ²).

    The first site has no records: except for its masked bytes, its answers must equal the others'.
    """
    units, workspace = audited.units, audited.workspace
    values = workspace.start.size
    rounds = max(-(-COORDINATES // values), ROUNDS)
    plan = replace(
        audited.plan,
        noise_multiplier=LOUD,
        max_grad_norm=BOUND,
        num_rounds=rounds,
        public_records=2 * len(units),
        expected_batch_size=len(units),
    )
    sharing, noise = plan.sharing, plan.shared_noise(values)
    assert sharing is not None
    # Questions hold the start, whole and exact.
    training = replace(
        recipe.training, physical_batch_tokens=64, probe_rounds=0, adapter_dtype=None
    )
    asked = AskedReleases.about(ReleaseKind.TRAINING, workspace.whole, values)
    summed = secure_sums(recipe, audited, plan, asked, rounds, training=training)
    elsewhere = secure_sums(recipe, audited, plan, asked, 1, training=training)
    deviation = noise.share * math.sqrt(sharing.sites)
    rows = np.array(summed.rows(values))
    both = np.concatenate([rows, elsewhere.rows(values)]) / deviation
    low, high = np.sqrt(stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], rows.size) / rows.size)
    drawn = shares_drawn(noise.share, summed.drawn, rounds)
    # What is left without the shares are clipped sums of batches, of all sites but the first.
    most = (sharing.sites - 1) * len(units) * noise.bound / noise.grid
    left = (
        max((float(np.linalg.norm(of)) for of in rows - np.array(drawn)), default=math.inf)
        if drawn
        else math.inf
    )
    expected = expected_charges(
        range(1, rounds + 1), asked.kind, LOUD, plan.sample_rate, plan.local_steps
    )
    return [
        Check(
            name="noise of the sum",
            law="noise of an unmasked sum over that of all sites' shares (χ²)",
            figure=float(np.sqrt(np.square(rows / deviation).mean())),
            low=float(low),
            high=float(high),
        ),
        p_check(
            "noise of different sums",
            "angles between the noise of sums of all rounds, and of other ledgers' first one",
            angle_p(both),
        ),
        exact_check(
            "summed updates and their noise",
            "largest norm of a sum without the shares of noise drawn for it, over that of all "
            "units at the clip bound",
            left / most,
            1.0,
        ),
        exact_check(
            "coins of summed updates",
            "coins that were drawn before, by any site under either ledger",
            repeated_coins(summed.drawn + elsewhere.drawn),
        ),
        *summed.checks("summed updates", expected, sharing.bits),
    ]
