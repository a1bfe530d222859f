"""The noise of each site's answer: the whole way from a request to bytes, at every site.

What one site alone does differently shows neither in the network's gradients nor in the mechanism.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from cloister.adapter.exchange import RoundRequest
from cloister.adapter.wire import decode, encode
from cloister.client.site import Site, answer
from cloister.privacy.laws import LEVEL, Check
from cloister.privacy.ledger import Ledger
from cloister.recipe import Recipe
from cloister.simulation.audit import AuditedSite
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training.config import TrainingConfig

# Noise so large beside the clip bound that no record shows in an update.
LOUD, BOUND, STEPS = 1e4, 1e-3, 4


def site_noise(recipe: Recipe, audited: AuditedSite, names: tuple[str, ...]) -> Check:
    """Asks every site for one round and puts each update's noise to the plan's (χ²).

    Args:
        recipe: The study.
        audited: Its path, with records that are nobody's.
        names: Of the sites.
    """
    units = audited.units
    plan = replace(
        audited.plan, noise_multiplier=LOUD, max_grad_norm=BOUND, max_update_norm=1e6,
        local_steps=STEPS, num_rounds=1, public_records=2 * len(units),
        expected_batch_size=len(units),
    )  # fmt: skip
    budget = simulated_budget(plan, 1.0)
    training = TrainingConfig(
        expected_batch_size=len(units), local_steps=STEPS, learning_rate=1.0,
        schedule="constant", physical_batch_tokens=64,
    )  # fmt: skip
    workspace = audited.workspace
    request = RoundRequest("audit", 1, encode(workspace.whole))
    policy = simulated_policy(recipe, plan, budget, workspace)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            site = Site(
                name=name, study="audit", plan=plan, policy=policy, training=training,
                units=units, unit=plan.unit, seed=recipe.study.seed,
                ledger=Ledger.create(Path(folder) / f"{number}.ledger", budget, plan.unit),
            )  # fmt: skip
            reply = answer(site, workspace, request, lambda: None)
            update = decode(reply.delta, workspace.sent.shapes)
            every = np.concatenate([value.ravel() for value in update.values()])
            deviation = LOUD * BOUND / len(units) * np.sqrt(STEPS)
            figures.append(float(np.sqrt(np.square(every / deviation, dtype=np.float64).mean())))
    # The limits of one look, LEVEL shared among the sites.
    chances = np.array([LEVEL / 2, 1 - LEVEL / 2])
    chances[0], chances[1] = chances[0] / len(names), 1 - (1 - chances[1]) / len(names)
    low, high = np.sqrt(stats.chi2.ppf(chances, len(every)) / len(every))
    return Check(
        name="noise at each site",
        law="noise of a site's answer furthest from the plan's σ·C·√4 and its divisor (χ²)",
        figure=max(figures, key=lambda figure: abs(np.log(max(figure, 1e-300)))),
        low=float(low),
        high=float(high),
    )
