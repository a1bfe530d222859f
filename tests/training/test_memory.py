"""An optimizer's state continues over rounds, as in one run of steps."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.client.personal import PersonalAdapter
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.entropy import SeededEntropy
from cloister.privacy.plan import Plan, make_plan
from cloister.training.config import TrainingConfig
from cloister.training.local import local_update
from cloister.training.memory import OptimizerMemory, kept_moments, memory_shapes
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace
from tests.support.models import tiny_bert
from tests.support.studies import small_workspace

CONFIG = TrainingConfig(
    mode="local-steps", expected_batch_size=6, learning_rate=0.05, schedule="constant"
)
WITH_MEMORY = [
    {"optimizer": "adamw"},
    {"optimizer": "adam-bc"},
    {"momentum": 0.9},
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_workspace(tiny_bert(tmp_path_factory.mktemp("base")))


def plan(rounds: int, steps: int, **privacy: object) -> Plan:
    whole = make_plan(
        PrivacyConfig(**{"noise_multiplier": 1.0, "max_grad_norm": 1.0} | privacy),  # type: ignore[arg-type]
        public_records=12,
        expected_batch_size=6,
        local_steps=steps,
        num_rounds=rounds,
        sites=1,
    )
    return dataclasses.replace(whole, max_update_norm=1e6)


def run(
    workspace: Workspace,
    config: TrainingConfig,
    of: Plan,
    memory: OptimizerMemory | None,
    units: list[UnitExamples],
) -> Adapter:
    """All rounds at one site, whose delta is the next round's start."""
    workspace.train_names(frozenset(workspace.start))
    entropy, at = SeededEntropy(np.random.default_rng(0)), workspace.start
    for number in range(1, of.num_rounds + 1):
        at = at + local_update(
            workspace.network,
            workspace.task,
            units,
            at,
            of,
            config,
            round_number=number,
            entropy=entropy,
            memory=memory,
        )
    return at


@pytest.mark.parametrize("fields", WITH_MEMORY)
def test_four_rounds_of_one_step_are_one_round_of_four(
    workspace: Workspace, fields: dict[str, object]
) -> None:
    config = dataclasses.replace(CONFIG, **fields)  # type: ignore[arg-type]
    whole = run(workspace, config, plan(1, 4), None, [])
    kept = OptimizerMemory.empty(config, workspace.start.shapes)
    pieces = run(workspace, config, plan(4, 1), kept, [])
    moved = (whole - workspace.start).norm()
    assert (pieces - whole).norm() <= 1e-5 * moved
    fresh = run(workspace, config, plan(4, 1), None, [])
    assert (fresh - whole).norm() > 0.1 * moved


def test_without_its_memory_one_step_of_adamw_is_the_sign_of_the_noise(
    workspace: Workspace,
) -> None:
    config = dataclasses.replace(CONFIG, optimizer="adamw")
    step = run(workspace, config, plan(1, 1), None, []) - workspace.start
    sizes = np.concatenate([np.abs(array).ravel() for array in step.values()])
    assert np.quantile(sizes, 0.05) == pytest.approx(config.learning_rate, rel=1e-3)


def test_what_rests_in_a_round_is_remembered_as_it_was(workspace: Workspace) -> None:
    config = dataclasses.replace(CONFIG, optimizer="adamw")
    memory = OptimizerMemory.empty(config, workspace.start.shapes)
    head = frozenset(name for name in workspace.start if name.startswith("head."))
    for number, names in enumerate((head, frozenset(workspace.start) - head), 1):
        workspace.train_names(names)
        before = memory.state
        local_update(
            workspace.network,
            workspace.task,
            [],
            workspace.start,
            plan(2, 1),
            config,
            round_number=number,
            entropy=SeededEntropy(np.random.default_rng(number)),
            memory=memory,
        )
        for name in workspace.start:
            steps = float(memory.state[f"{name}:step"][0])
            assert steps == (1.0 if name in names or number == 2 else 0.0)
            if name not in names:
                same = memory.state[f"{name}:exp_avg"] == before[f"{name}:exp_avg"]
                assert same.all()


def test_a_memory_that_is_not_finite_is_forgotten(workspace: Workspace) -> None:
    config = dataclasses.replace(CONFIG, momentum=0.9)
    memory = OptimizerMemory.empty(config, workspace.start.shapes)
    name = next(iter(memory.state))
    broken = np.full(memory.state[name].shape, np.inf, dtype=np.float32)
    memory.state = memory.state.replace(Adapter({name: broken}))
    run_once = plan(1, 1)
    workspace.train_names(frozenset(workspace.start))
    local_update(
        workspace.network,
        workspace.task,
        [],
        workspace.start,
        run_once,
        config,
        round_number=1,
        entropy=SeededEntropy(np.random.default_rng(0)),
        memory=memory,
    )
    assert memory.state.norm() == 0.0


def test_memory_takes_what_is_stated_and_plain_sgd_none() -> None:
    trained = {"a": (3, 4), "b": (5,)}
    assert kept_moments(CONFIG) == ()
    assert memory_shapes(CONFIG, trained) == {}
    adam = memory_shapes(dataclasses.replace(CONFIG, optimizer="adamw"), trained)
    assert sum(int(np.prod(shape)) for shape in adam.values()) == 2 * 17 + 2
    momentum = memory_shapes(dataclasses.replace(CONFIG, momentum=0.9), trained)
    assert sorted(momentum.values()) == [(3, 4), (5,)]


def test_the_file_s_form_is_an_adapter_s(workspace: Workspace, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optimizer="adamw")
    memory = OptimizerMemory.empty(config, workspace.start.shapes)
    run(workspace, config, plan(1, 2), memory, [])
    kept = PersonalAdapter.of_optimizer(tmp_path / "x.ledger", "s" * 64)
    kept.save(1, memory.state)
    assert [p.name for p in (tmp_path / "x.personal").iterdir()] == [
        f"{'s' * 16}-round-000001.optimizer"
    ]
    assert PersonalAdapter.beside(tmp_path / "x.ledger", "s" * 64).before(2, {}) is None
    found = kept.before(2, memory_shapes(config, workspace.start.shapes))
    assert found is not None
    assert found.norm() > 0
    assert (found - memory.state).norm() == 0.0
