"""A round of local steps: equal to plain PEFT training without privacy, and exact with it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.adapter.tensors import Adapter
from cloister.data.records import TextRecord
from cloister.errors import UsageError
from cloister.models.network import trained_parameters
from cloister.models.state import write_adapter
from cloister.privacy import mechanism
from cloister.privacy.clipping import MARGIN
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.entropy import OsEntropy, SeededEntropy
from cloister.privacy.plan import Plan, make_plan
from cloister.strategies.build import make_strategy
from cloister.strategies.config import StrategyConfig
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.strategy import ServerState
from cloister.tasks.task import Example
from cloister.training.config import TrainingConfig
from cloister.training.local import clip_update, local_update
from cloister.training.shapes import BatchShapes, candidates
from cloister.training.units import singles
from cloister.training.workspace import Workspace
from tests.reference.dp_sgd import clipped_sum
from tests.support.studies import NOTES, small_workspace

CONFIG = TrainingConfig(
    mode="local-steps",
    expected_batch_size=6,
    local_steps=4,
    learning_rate=0.5,
    schedule="constant",
)


def plan(**privacy: object) -> Plan:
    return make_plan(
        PrivacyConfig(**privacy),  # type: ignore[arg-type]
        public_records=12,
        expected_batch_size=6,
        local_steps=4,
        num_rounds=2,
        sites=3,
    )


@pytest.fixture
def workspace(bert: Path) -> Workspace:
    return small_workspace(bert)


@pytest.fixture
def examples(workspace: Workspace) -> list[Example]:
    records = [TextRecord(text, label) for label, texts in NOTES.items() for text in texts]
    return workspace.encode(records)


def seeded(seed: int = 0) -> SeededEntropy:
    return SeededEntropy(np.random.default_rng(seed))


def update(
    workspace: Workspace,
    examples: list[Example],
    chosen: Plan,
    seed: int = 0,
    shapes: BatchShapes | None = None,
    **config: object,
) -> Adapter:
    return local_update(
        workspace.network,
        workspace.task,
        singles(examples),
        workspace.start,
        chosen,
        dataclasses.replace(CONFIG, **config),  # type: ignore[arg-type]
        round_number=1,
        entropy=seeded(seed),
        shapes=shapes,
    )


def test_no_parameter_goes_beyond_what_isolation_was_tried_for(
    workspace: Workspace, examples: list[Example]
) -> None:
    """Nor within a round, whatever the learning rate."""
    for most_value in (None, 0.5):
        local_update(
            workspace.network,
            workspace.task,
            singles(examples),
            workspace.start,
            plan(),
            dataclasses.replace(CONFIG, learning_rate=1e6),
            round_number=1,
            entropy=seeded(),
            most_value=most_value,
        )
        values = [p.detach().abs().max() for _, p in trained_parameters(workspace.network)]
        assert max(values) > 1e3 if most_value is None else max(values) == most_value


def plain_peft_training(workspace: Workspace, examples: list[Example]) -> Adapter:
    """What anybody would write: sample, mean-free loss, backward, step."""
    write_adapter(workspace.network, workspace.start)
    parameters = [p for _, p in trained_parameters(workspace.network)]
    optimizer = torch.optim.SGD(parameters, lr=CONFIG.learning_rate)
    entropy = seeded()
    for _ in range(CONFIG.local_steps):
        keep = entropy.uniform(len(examples)) < 0.5
        drawn = [example for example, kept in zip(examples, keep, strict=True) if kept]
        optimizer.zero_grad()
        if drawn:
            batch = workspace.task.collate(drawn)
            logits = workspace.network(batch.input_ids, batch.attention_mask)
            loss = torch.nn.functional.cross_entropy(logits, batch.target, reduction="sum") / 6
            loss.backward()
        optimizer.step()
    values = {n: p.detach().numpy() for n, p in trained_parameters(workspace.network)}
    return Adapter(values) - workspace.start


def largest_difference(one: Adapter, other: Adapter) -> float:
    return max(float(np.abs(a).max()) for a in (one - other).values())


@pytest.mark.parametrize(
    "privacy",
    [{"enabled": False}, {"noise_multiplier": 0.0, "max_grad_norm": 1e3, "max_update_norm": 1e3}],
    ids=["plain", "private loop, nothing clipped, no noise"],
)
def test_without_noise_the_loop_equals_plain_peft_training(
    workspace: Workspace, examples: list[Example], privacy: dict[str, object]
) -> None:
    expected = plain_peft_training(workspace, examples)
    found = update(workspace, examples, plan(**privacy))
    assert expected.norm() > 0.1
    assert largest_difference(found, expected) < 1e-5


def test_physical_batches_do_not_change_the_result(
    workspace: Workspace, examples: list[Example]
) -> None:
    chosen = plan(noise_multiplier=1.0)
    passes: list[int] = []
    counting = workspace.network.backbone.register_forward_hook(lambda *_: passes.append(1))
    try:
        alone = update(workspace, examples, chosen)
        one_by_one = len(passes)
        one = update(workspace, examples, chosen, shapes=candidates(16, 256))
        together = len(passes) - one_by_one
        other = update(workspace, examples, chosen, shapes=candidates(16, 32))
    finally:
        counting.remove()
    # Row counts that no proof chose: a record's gradient is rounded otherwise, over four steps.
    assert largest_difference(one, other) < 1e-5
    assert largest_difference(one, alone) < 1e-5
    assert together < one_by_one  # several records did go together


class Counting:
    """Entropy that counts its draws."""

    is_private = False

    def __init__(self) -> None:
        self.noise_draws = 0
        self.batches = 0

    def uniform(self, count: int) -> np.ndarray:
        self.batches += 1
        return np.full(count, 0.999) if self.batches == 1 else np.zeros(count)

    def gaussian(self, deviation: float, count: int) -> np.ndarray:
        self.noise_draws += 1
        return np.full(count, round(deviation))


def test_noise_is_drawn_once_a_step_for_each_tensor_and_empty_batches_too(
    workspace: Workspace, examples: list[Example]
) -> None:
    entropy = Counting()  # its first batch is empty, the others hold every record
    delta = local_update(
        workspace.network,
        workspace.task,
        singles(examples),
        workspace.start,
        plan(noise_multiplier=1.0),
        dataclasses.replace(CONFIG, physical_batch_tokens=8),
        round_number=1,
        entropy=entropy,
    )
    assert entropy.batches == CONFIG.local_steps
    assert entropy.noise_draws == CONFIG.local_steps * len(workspace.start)
    assert delta.is_finite()


def test_an_empty_site_sends_noise_of_the_usual_form(workspace: Workspace) -> None:
    delta = update(workspace, [], plan(noise_multiplier=1.0, max_grad_norm=1.0))
    assert delta.shapes == workspace.start.shapes
    # Four steps of lr·σ·C/6 in d coordinates: norm ≈ √(4·d)/12, unless clipped to 10.
    expected = math.sqrt(4 * workspace.start.size) * 0.5 / 6
    assert delta.norm() == pytest.approx(expected, rel=0.2)


def test_the_divisor_is_the_plan_s_and_not_the_batch_s(
    workspace: Workspace, examples: list[Example]
) -> None:
    everything = dataclasses.replace(plan(enabled=False), public_records=6, local_steps=1)
    doubled = update(workspace, examples * 2, everything)
    single = update(workspace, examples, everything)
    assert largest_difference(doubled, single.scale(2)) < 1e-5


def test_nothing_longer_than_the_update_bound_leaves(
    workspace: Workspace, examples: list[Example]
) -> None:
    delta = update(workspace, examples, plan(noise_multiplier=5.0, max_update_norm=0.1))
    assert delta.norm() == pytest.approx(0.1, rel=1e-5)


def test_an_update_that_is_not_finite_becomes_zero() -> None:
    assert clip_update(Adapter({"x": np.array([np.nan, 1.0])}), 1.0).norm() == 0.0


def test_probe_rounds_train_and_send_the_head_alone(
    workspace: Workspace, examples: list[Example]
) -> None:
    head = frozenset(name for name in workspace.start if name.startswith("head."))
    workspace.train_names(head)
    delta = update(workspace, examples, plan(enabled=False))
    assert set(delta) == head
    assert delta.norm() > 0


def test_os_entropy_gives_another_update_each_time(
    workspace: Workspace, examples: list[Example]
) -> None:
    chosen = plan(noise_multiplier=1.0)
    deltas = [
        local_update(
            workspace.network,
            workspace.task,
            singles(examples),
            workspace.start,
            chosen,
            CONFIG,
            round_number=1,
            entropy=OsEntropy(),
        )
        for _ in range(2)
    ]
    assert (deltas[0] - deltas[1]).norm() > 0.1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_learning_rate_of_almost_nothing_moves_almost_nothing(
    workspace: Workspace, examples: list[Example], optimizer: str
) -> None:
    delta = update(
        workspace, examples, plan(enabled=False), optimizer=optimizer, learning_rate=1e-6
    )
    # AdamW's steps are about the learning rate in each coordinate.
    assert 0 < delta.norm() < 1e-5 * math.sqrt(workspace.start.size)


def test_the_proximal_term_pulls_towards_the_start_and_looks_at_no_record(
    workspace: Workspace, examples: list[Example]
) -> None:
    """With no record in any batch it is all that moves: x ← x − lr (noise + μ (x − x₀))."""
    chosen = plan(noise_multiplier=1.0)
    free = update(workspace, [], chosen)
    held = update(workspace, [], chosen, proximal=0.5)
    again = update(workspace, examples, chosen, proximal=0.5)
    assert held.norm() < free.norm()
    assert again.shapes == held.shapes
    one = dataclasses.replace(chosen, local_steps=1)
    alone, pulled = (update(workspace, examples, one, proximal=mu) for mu in (0.0, 0.5))
    assert (alone - pulled).norm() == 0.0  # a single step starts where it is pulled to


def test_the_proximal_term_is_its_gradient(workspace: Workspace, examples: list[Example]) -> None:
    """Two plain steps by hand."""
    chosen = dataclasses.replace(plan(enabled=False), local_steps=2, num_rounds=1)
    rate, mu = CONFIG.learning_rate, 0.7
    one = dataclasses.replace(chosen, local_steps=1)
    first = update(workspace, examples, one)
    free = update(workspace, examples, chosen)
    held = update(workspace, examples, chosen, proximal=mu)
    # The second step's gradient is the same; the pull alone is new.
    assert (held - (free - first.scale(rate * mu))).norm() <= 1e-5 * free.norm()


# What is wrong in a round is wrong in each; every night as many as show that nothing adds up.
ROUNDS = [5, pytest.param(20, marks=pytest.mark.nightly)]


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam"])
def test_gradient_rounds_at_sites_are_central_training(
    workspace: Workspace, examples: list[Example], strategy: str, rounds: int
) -> None:
    """Rounds of full batches, clipped, without noise: three sites of unequal length of text
    against one with all records."""
    method = make_strategy(StrategyConfig(name=strategy), ())  # type: ignore[arg-type]
    config = TrainingConfig(
        mode="gradient-rounds", expected_batch_size=3, learning_rate=5.0, schedule="constant"
    )
    third = dataclasses.replace(
        plan(noise_multiplier=0.0, max_grad_norm=0.5),
        public_records=3,
        expected_batch_size=3,
        local_steps=1,
        num_rounds=rounds,
        max_update_norm=1e3,
    )
    whole = dataclasses.replace(third, public_records=9, expected_batch_size=9)
    # Mostly of one label, so that there is something to learn.
    mostly = [*examples[:3], *examples[:3], *examples[-3:]]
    nine = sorted(mostly, key=lambda example: len(example.input_ids))
    parts = {f"site-{k}": nine[3 * k : 3 * k + 3] for k in range(3)}

    def trained(sites: dict[str, list[Example]], of: Plan) -> Adapter:
        state = method.init(workspace.start)
        for number in range(1, rounds + 1):
            updates = {
                site: local_update(
                    workspace.network,
                    workspace.task,
                    singles(records),
                    state.adapter,
                    of,
                    config,
                    round_number=number,
                    entropy=seeded(),
                )
                for site, records in sites.items()
            }
            state = method.aggregate(state, updates)
        return state.adapter

    federated, central = trained(parts, third), trained({"all": nine}, whole)
    # Adam divides by the root of what it has seen, so rounding grows with its steps.
    # float32 has 6e-8 of a value's size, some of it in each round.
    apart = (federated - central).norm()
    assert apart <= (1e-3 if strategy == "fedadam" else 1e-6 * central.norm())
    assert (federated - workspace.start).norm() > 0.1


@pytest.mark.parametrize("rounds", ROUNDS)
def test_gradient_rounds_on_poisson_batches_are_central_dp_sgd_by_the_book(
    workspace: Workspace, examples: list[Example], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds at sites of 2, 5 and 11 records: what each drew goes, pooled, one record at a time,
    through plain autograd and one SGD step."""
    sizes, rate, batch, bound = (2, 5, 11), 3.0, 2, 0.5
    rng, drawn = np.random.default_rng(8), []

    def draw(count: int, rate: float, entropy: object) -> np.ndarray:  # type: ignore[type-arg]
        drawn.append(np.flatnonzero(rng.random(count) < rate))
        return drawn[-1]

    monkeypatch.setattr(mechanism, "poisson_sample", draw)
    records = [examples[(index * index) % 7] for index in range(sum(sizes))]
    parts = {"a": records[:2], "b": records[2:7], "c": records[7:]}
    of = dataclasses.replace(
        plan(noise_multiplier=0.0, max_grad_norm=bound),
        public_records=4,
        expected_batch_size=batch,
        local_steps=1,
        num_rounds=rounds,
        max_update_norm=1e3,
    )
    config = TrainingConfig(
        mode="gradient-rounds", expected_batch_size=batch, learning_rate=rate, schedule="constant"
    )
    state, central = ServerState(workspace.start), workspace.start
    for number in range(1, rounds + 1):
        drawn.clear()
        updates = {
            site: local_update(
                workspace.network,
                workspace.task,
                singles(own),
                state.adapter,
                of,
                config,
                round_number=number,
                entropy=seeded(),
            )
            for site, own in parts.items()
        }
        state = FedAvg({}).aggregate(state, updates)
        pooled = [own[i] for own, kept in zip(parts.values(), drawn, strict=True) for i in kept]
        write_adapter(workspace.network, central)
        total, _ = clipped_sum(workspace.network, workspace.task, pooled, bound * (1 - MARGIN))
        names = [name for name, _ in trained_parameters(workspace.network)]
        step = {n: -rate * t.numpy() / (3 * batch) for n, t in zip(names, total, strict=True)}
        central = central + Adapter(step)
    assert (state.adapter - central).norm() <= 1e-5
    assert (central - workspace.start).norm() > 0.1


@pytest.mark.parametrize(
    "wrong", [{"local_steps": 2}, {"optimizer": "adamw"}, {"momentum": 0.9}, {"proximal": 0.1}]
)
def test_gradient_rounds_leave_the_optimizer_to_the_server(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"optimizer.*training\.mode = \"local-steps\""):
        TrainingConfig(**wrong)  # type: ignore[arg-type]
