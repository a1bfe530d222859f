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
from cloister.client.admission import admit
from cloister.client.app import make_client_app
from cloister.client.round import answer
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.privacy.laws import LEVEL, Check
from cloister.privacy.ledger import Ledger
from cloister.recipe import Recipe
from cloister.server.asking import Asker, Patience
from cloister.server.replies import Terms
from cloister.server.secure import SecureRounds
from cloister.simulation.audit import AuditedSite
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.training.config import TrainingConfig

# Noise so large beside the clip bound that no record shows in an update.
LOUD, BOUND, STEPS = 1e4, 1e-3, 4
# Of a sum's noise, so that one share of thirty that is missing is seen.
COORDINATES = 100_000


def site_noise(recipe: Recipe, audited: AuditedSite, names: tuple[str, ...]) -> Check:
    """Asks every site for one round and puts each update's noise to the plan's (χ²).

    Args:
        recipe: The study.
        audited: Its path, with records that are nobody's.
        names: Of the sites.
    """
    if audited.plan.sharing is not None:
        return _noise_of_the_sum(recipe, audited, names)
    units = audited.units
    plan = replace(
        audited.plan, noise_multiplier=LOUD, max_grad_norm=BOUND, max_update_norm=1e6,
        local_steps=STEPS, num_rounds=1, public_records=2 * len(units),
        expected_batch_size=len(units),
    )  # fmt: skip
    budget = simulated_budget(plan, 1.0)
    training = TrainingConfig(
        mode="local-steps", expected_batch_size=len(units), local_steps=STEPS,
        learning_rate=1.0, schedule="constant", physical_batch_tokens=64,
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


def _noise_of_the_sum(recipe: Recipe, audited: AuditedSite, names: tuple[str, ...]) -> Check:
    """Asks all sites for one secure sum and puts its noise to what all shares come to (χ²)."""
    units, workspace = audited.units, audited.workspace
    plan = replace(
        audited.plan, noise_multiplier=LOUD, max_grad_norm=BOUND,
        num_rounds=-(-COORDINATES // workspace.start.size), public_records=2 * len(units),
        expected_batch_size=len(units),
    )  # fmt: skip
    assert plan.sharing is not None
    budget, values = simulated_budget(plan, 1.0), workspace.start.size
    training = replace(recipe.training, physical_batch_tokens=64, probe_rounds=0)
    with tempfile.TemporaryDirectory() as folder:
        ledgers = {
            name: Ledger.create(Path(folder) / f"{name}.ledger", budget, plan.unit)
            for name in names
        }
        keys = {name: ledger.public_key for name, ledger in ledgers.items()}
        sites = [
            Site(
                name=name, study="audit", plan=plan, training=training, units=units,
                unit=plan.unit, seed=recipe.study.seed, ledger=ledgers[name], keys=EpochKeys(),
                policy=simulated_policy(recipe, plan, budget, workspace, tuple(keys.values())),
            )
            for name in names
        ]  # fmt: skip
        app = make_client_app(
            lambda at: admit(sites[int(str(at.node_config["partition-id"]))], workspace)
        )
        grid = LocalGrid(app, len(names))
        asker = Asker(grid, lambda _: dict.fromkeys(grid.get_node_ids(), ""), Patience(3600.0))
        rounds = SecureRounds(asker, Terms("audit", names, keys), keys, plan.sharing)
        nodes = dict.fromkeys(grid.get_node_ids(), "")
        totals = [
            rounds.run(number, encode(workspace.whole), values, nodes).total
            for number in range(1, plan.num_rounds + 1)
        ]
    came = [total for total in totals if total is not None] or [np.zeros(1, dtype=np.int64)]
    every = np.concatenate(came) / (plan.shared_noise(values).share * np.sqrt(len(names)))
    low, high = np.sqrt(stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], len(every)) / len(every))
    return Check(
        name="noise of the sum",
        law="noise of an unmasked sum over what all sites' shares come to (χ²)",
        figure=float(np.sqrt(np.square(every).mean())),
        low=float(low),
        high=float(high),
    )
