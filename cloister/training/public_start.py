"""Trains the adapter on public records with plain steps, at the coordinator only.

    for each of the steps: draw a batch of public records, average their gradients, step (SGD)

No site takes part and no private record is read, so it costs no ε. Before round 1, private training
then begins with an adapter that fits the domain, so its clipped and noised steps can learn what
public records do not teach (Li et al. 2022, arXiv:2110.05679, section 3; Ganesh et al. 2023,
arXiv:2302.09483). After a round, it keeps what public records of an earlier task teach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cloister.adapter.tensors import Adapter
from cloister.data.records import Record
from cloister.privacy.entropy import SeededEntropy
from cloister.privacy.plan import Plan
from cloister.seeds import child_generator
from cloister.training.config import TrainingConfig
from cloister.training.local import local_update
from cloister.training.units import singles
from cloister.training.workspace import Workspace


def public_start(
    workspace: Workspace,
    before: Adapter,
    records: Sequence[Record],
    config: TrainingConfig,
    seed: int,
) -> Adapter:
    """Returns the global adapter after training on public records before round 1.

    Args:
        workspace: The study's workspace; its network is overwritten, and all tensors that sites
            send are trained.
        before: The global adapter to begin with.
        records: Public records with the labels of the task.
        config: The `[training]` section; only `public_steps`, `public_batch_size` and
            `public_learning_rate` are used. The rate falls linearly to 0.
        seed: The study's seed; it draws the batches, so that every party gets the same adapter.

    Returns:
        All tensors of `before`; the trained ones are changed.
    """
    workspace.train_names(frozenset(workspace.sent))
    generator = child_generator(seed, "public start")
    steps = config.public_step_count
    return _trained(workspace, before, records, config, steps, "warmup-linear", generator)


def public_replay(
    workspace: Workspace,
    before: Adapter,
    records: Sequence[Record],
    config: TrainingConfig,
    steps: int,
    names: frozenset[str],
    round_number: int,
    seed: int,
) -> Adapter:
    """Returns the global adapter after steps on public records that follow a round.

    Args:
        workspace: The study's workspace; its network is overwritten.
        before: The global adapter after the round.
        records: Public records with the labels of the task.
        config: The `[training]` section; only `public_batch_size` and `public_learning_rate` are
            used. The rate is the same in each step.
        steps: How many steps are taken.
        names: The tensors that the sites trained in this round; no other one changes.
        round_number: The round; each draws batches of its own.
        seed: The study's seed; it draws the batches, so a resumed run takes the same steps.

    Returns:
        All tensors of `before`; the trained ones are changed.
    """
    workspace.train_names(names)
    generator = child_generator(seed, "public replay", round_number)
    return _trained(workspace, before, records, config, steps, "constant", generator)


def _trained(
    workspace: Workspace,
    before: Adapter,
    records: Sequence[Record],
    config: TrainingConfig,
    steps: int,
    schedule: Literal["constant", "warmup-linear"],
    generator: np.random.Generator,
) -> Adapter:
    batch = min(config.public_batch, len(records))
    plan = Plan(
        public_records=len(records),
        expected_batch_size=batch,
        local_steps=steps,
        num_rounds=1,
        noise_multiplier=0.0,
        max_grad_norm=None,
        max_update_norm=None,
        delta=1e-5,  # not used: no noise is added here
    )
    plain = TrainingConfig(
        mode="local-steps",
        expected_batch_size=batch,
        local_steps=steps,
        learning_rate=config.public_rate,
        schedule=schedule,
        physical_batch_tokens=config.physical_batch_tokens,
    )
    delta = local_update(
        workspace.network,
        workspace.task,
        singles(workspace.encode(records)),
        before,
        plan,
        plain,
        round_number=1,
        entropy=SeededEntropy(generator),
    )
    return before.replace(before.select(delta) + delta)
