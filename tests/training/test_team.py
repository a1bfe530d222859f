"""Several processes at a site give the bits of one, with one noise and a clear end."""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.errors import RefusedError, UsageError
from cloister.models import device as device_file
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.kept_states import KeptStates
from cloister.models.network import Network, trained_parameters
from cloister.models.state import read_adapter
from cloister.privacy.clipping import ClippedSum, empty_sum
from cloister.privacy.entropy import SeededEntropy
from cloister.privacy.plan import Plan
from cloister.privacy.sharing import Sharing
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import Task
from cloister.training import joined_processes as joining
from cloister.training import team as team_file
from cloister.training.config import TrainingConfig
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.joined_processes import join
from cloister.training.local import local_update
from cloister.training.machine import MachineConfig
from cloister.training.passes import passes
from cloister.training.proof import prove
from cloister.training.proof_key import depends_on
from cloister.training.shapes import BatchShapes, one_by_one
from cloister.training.shared import shared_gradient
from cloister.training.team import AskDepends, AskSum, Opening, Team, Worker, parted, process_of
from cloister.training.units import UnitExamples
from cloister.training.worker import _answer
from cloister.training.workspace import Workspace, open_workspace
from tests.support import worker_forks
from tests.support.isolation import random_units
from tests.support.studies import NOTES

LIMIT = 100.0
PLAN = Plan(
    public_records=40,
    expected_batch_size=20,
    local_steps=3,
    num_rounds=2,
    noise_multiplier=1.0,
    max_grad_norm=0.5,
    max_update_norm=1.0,
    delta=1e-5,
)
CONFIG = TrainingConfig(
    mode="local-steps",
    expected_batch_size=20,
    local_steps=3,
    learning_rate=0.5,
    optimizer="adamw",
    physical_batch_tokens=128,
)


@pytest.fixture(scope="module", autouse=True)
def forked() -> Iterator[None]:
    """Second processes are forks that find torch loaded; in `make nightly` they load it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team_file, "subprocess", worker_forks)
        yield


@pytest.fixture(scope="module")
def workspace(bert: Path) -> Iterator[Workspace]:
    """Two processes, of which the second is started when a test first needs it."""
    opened = open_workspace(
        ModelConfig(base=str(bert)),
        LoraConfig(train="both", top_layers=1),
        TaskConfig(max_length=16),
        tuple(sorted(NOTES)),
        0,
        frozen_cache_gib=0.01,
        device="cpu",
        processes=2,
    )
    yield opened
    team_of(opened).close()


def team_of(workspace: Workspace) -> Team:
    assert workspace.team is not None
    return workspace.team


@pytest.fixture(scope="module")
def shapes(workspace: Workspace) -> BatchShapes:
    return prove(workspace, PLAN, CONFIG).shapes


@pytest.fixture
def joined(workspace: Workspace, shapes: BatchShapes) -> Workspace:
    join(workspace, PLAN, CONFIG, shapes, LIMIT)
    workspace.train_names(frozenset(workspace.start))
    return workspace


@pytest.fixture(scope="module")
def persons(workspace: Workspace) -> list[UnitExamples]:
    """Units of none to four records."""
    records = [unit[0] for unit in random_units(workspace, 90, 1, full=False)]
    sizes = [0, 1, 4, 2, 1, 3] * 8
    ends = np.cumsum(sizes)
    return [tuple(records[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("grid", [None, 2.0**-20])
def test_the_sum_of_two_processes_is_that_of_one_bit_for_bit(
    joined: Workspace, shapes: BatchShapes, persons: list[UnitExamples], grid: float | None
) -> None:
    network, task = joined.network, joined.task
    with per_record_hooks(network):
        alone = clipped_gradient_sum(network, task, persons, 0.5, shapes, grid)
        together = joined.summing(network, task, persons, 0.5, shapes, grid)
    assert equal(together.tensors, alone.tensors)
    assert (together.bound, together.grid) == (alone.bound, alone.grid)
    assert any(tensor.any() for tensor in alone.tensors)


def test_what_trains_in_a_round_trains_in_every_process(
    joined: Workspace, shapes: BatchShapes, persons: list[UnitExamples]
) -> None:
    network, every = joined.network, frozenset(joined.start)
    head = frozenset(name for name in every if name.startswith("head."))
    for names in (head, every - head, every):
        joined.train_names(names)
        with per_record_hooks(network):
            alone = clipped_gradient_sum(network, joined.task, persons, 0.5, shapes)
            together = joined.summing(network, joined.task, persons, 0.5, shapes, None)
        assert len(alone.tensors) == len(names)
        assert equal(together.tensors, alone.tensors)


def rounds(
    workspace: Workspace,
    units: Sequence[UnitExamples],
    shapes: BatchShapes,
    plan: Plan,
    config: TrainingConfig,
    *,
    alone: bool,
) -> tuple[np.ndarray, SeededEntropy]:
    """Two rounds from a seed: the adapter that they end with, and what is left of the seed."""
    entropy, at = SeededEntropy(np.random.default_rng(5)), workspace.whole
    summing = clipped_gradient_sum if alone else workspace.summing
    for number in (1, 2):
        delta = local_update(
            workspace.network,
            workspace.task,
            units,
            at,
            plan,
            config,
            round_number=number,
            entropy=entropy,
            shapes=shapes,
            summing=summing,
        )
        at = at.replace(at.select(delta.keys()) + delta)
    return np.concatenate([array.ravel() for _, array in sorted(at.items())]), entropy


@pytest.mark.parametrize("mode", ["local-steps", "gradient-rounds"])
def test_rounds_of_two_processes_are_those_of_one_with_one_noise(
    joined: Workspace, shapes: BatchShapes, persons: list[UnitExamples], mode: str
) -> None:
    plan, config = PLAN, CONFIG
    if mode == "gradient-rounds":
        plan = replace(PLAN, local_steps=1)
        config = TrainingConfig(expected_batch_size=20, physical_batch_tokens=128)
    alone, left = rounds(joined, persons, shapes, plan, config, alone=True)
    together, also_left = rounds(joined, persons, shapes, plan, config, alone=False)
    assert np.array_equal(alone, together)
    # As much was drawn, whoever draws: the next number is the same.
    assert left.uniform(1) == also_left.uniform(1)


def test_a_share_of_secure_noise_is_that_of_one_process(
    joined: Workspace, shapes: BatchShapes, persons: list[UnitExamples]
) -> None:
    plan = replace(PLAN, local_steps=1, sharing=Sharing(sites=3, missing=1, colluding=0))
    found = [
        shared_gradient(
            joined.network,
            joined.task,
            persons,
            joined.start,
            plan,
            CONFIG,
            entropy=SeededEntropy(np.random.default_rng(2)),
            shapes=shapes,
            summing=summing,
        )
        for summing in (clipped_gradient_sum, joined.summing)
    ]
    assert np.array_equal(*found)


def test_a_unit_goes_whole_to_one_process_that_follows_from_it_alone(
    joined: Workspace,
    shapes: BatchShapes,
    persons: list[UnitExamples],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[UnitExamples] = []
    own: list[UnitExamples] = []

    def ask(worker: Worker, question: object) -> None:
        if isinstance(question, AskSum):
            sent.extend(question.units)
        sound_ask(worker, question)  # type: ignore[arg-type]

    def summed(
        network: Network, task: Task, units: Sequence[UnitExamples], *more: object
    ) -> ClippedSum:
        own.extend(units)
        return clipped_gradient_sum(network, task, units, *more)  # type: ignore[arg-type]

    sound_ask = Worker.ask
    monkeypatch.setattr(Worker, "ask", ask)
    monkeypatch.setattr(team_file, "clipped_gradient_sum", summed)
    with per_record_hooks(joined.network):
        joined.summing(joined.network, joined.task, persons, 0.5, shapes, None)
    assert sorted(map(repr, sent + own)) == sorted(map(repr, persons))
    assert [own, sent] == parted(persons, 2)
    # A fair share: of 40 units with records five deviations from a half are 16.
    assert 4 <= sum(map(bool, sent)) <= 36
    assert {process_of(unit, 5) for unit in persons} == set(range(5))


def test_one_unit_more_changes_no_other_s_process_and_equal_ones_are_dealt_out(
    persons: list[UnitExamples],
) -> None:
    """Of 200 equal units all would go to one process, and a step would take twice its time."""
    equal_ones = [persons[2]] * 200
    shares = parted(equal_ones, 2)
    assert min(map(len, shares)) >= 100 - 5 * 50**0.5  # five deviations
    batch = [*persons, *equal_ones[:3]]
    before = [Counter(share) for share in parted(batch, 3)]
    for more in (persons[2], persons[4], (persons[2][0],)):
        after = [Counter(share) for share in parted([more, *batch], 3)]
        added = [new - old for new, old in zip(after, before, strict=True)]
        assert sum(added, Counter()) == Counter([more])
        assert not any(old - new for new, old in zip(after, before, strict=True))


def test_what_is_timed_apart_uses_and_leaves_no_kept_states_in_a_worker(
    joined: Workspace, shapes: BatchShapes, persons: list[UnitExamples]
) -> None:
    """Else the second of two steps on the same synthetic units would be timed without its base."""
    prefix = joined.network.prefix
    assert prefix is not None
    prefix._kept = KeptStates()
    tensors, names = dict(joined.start), frozenset(joined.start)
    for apart in (True, False):
        _answer(joined, AskSum(tensors, names, persons[:9], 0.5, shapes, None, apart))
        assert bool(prefix._kept._states) is not apart
    asked: list[bool] = []
    with pytest.MonkeyPatch.context() as patched, prefix.apart():
        patched.setattr(Worker, "ask", lambda _, question: asked.append(question.apart))
        patched.setattr(
            Worker, "answer", lambda _: [np.zeros(a.shape, np.int64) for a in joined.start.values()]
        )
        with per_record_hooks(joined.network):
            joined.summing(joined.network, joined.task, persons[:1], 0.5, shapes, None)
    assert asked == [True]


def test_joining_leaves_the_network_as_it_was(joined: Workspace, shapes: BatchShapes) -> None:
    names = frozenset(name for name in joined.start if name.startswith("head."))
    joined.train_names(names)
    before = read_adapter(joined.network)
    team_of(joined).agreed.clear()
    join(joined, PLAN, CONFIG, shapes, LIMIT)
    after = read_adapter(joined.network)
    assert after.keys() == before.keys() == names
    assert all(np.array_equal(after[name], before[name]) for name in names)


def test_a_process_that_fails_ends_the_step_and_the_others(
    joined: Workspace, shapes: BatchShapes, persons: list[UnitExamples]
) -> None:
    """The worker is told of more threads than it has; this process, which has none, is not."""
    other = replace(shapes, threads=torch.get_num_threads() + 1)
    (worker,) = team_of(joined).workers
    asked = AskSum(dict(joined.start), frozenset(joined.start), persons, 0.5, other, None, False)
    worker.ask(asked)
    with pytest.raises(RefusedError, match=r"process 2 of 2 .* failed: RefusedError: .*threads"):
        worker.answer()


@pytest.mark.nightly  # tests/client/test_processes.py kills one, and has it started again
def test_a_process_killed_in_a_step_ends_it_with_one_message(
    joined: Workspace,
    shapes: BatchShapes,
    persons: list[UnitExamples],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    team = team_of(joined)
    (worker,) = team.workers

    def killing(*arguments: object) -> ClippedSum:
        os.kill(worker.process.pid, signal.SIGKILL)
        return clipped_gradient_sum(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, per_record_hooks(joined.network):
        patched.setattr(team_file, "clipped_gradient_sum", killing)
        os.kill(worker.process.pid, signal.SIGSTOP)  # so that it cannot answer before
        with pytest.raises(RefusedError, match=r"process 2 of 2 .* ended by SIGKILL"):
            joined.summing(joined.network, joined.task, persons, 0.5, shapes, None)
    assert team.workers == ()
    with per_record_hooks(joined.network), pytest.raises(RefusedError, match="not started"):
        joined.summing(joined.network, joined.task, persons, 0.5, shapes, None)


def test_it_is_started_again_for_the_next_round_and_ends_when_its_site_does(
    joined: Workspace, shapes: BatchShapes, persons: list[UnitExamples]
) -> None:
    with per_record_hooks(joined.network):
        alone = clipped_gradient_sum(joined.network, joined.task, persons, 0.5, shapes)
        again = joined.summing(joined.network, joined.task, persons, 0.5, shapes, None)
    assert equal(again.tensors, alone.tensors)
    (worker,) = team_of(joined).workers
    assert worker.process.stdin is not None
    worker.process.stdin.close()  # as the system does when the site's process is gone
    assert worker.process.wait(timeout=300) == 0
    assert not team_of(joined).is_whole


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_however_a_step_is_cut_off_nobody_is_left_to_answer_it(
    workspace: Workspace,
    shapes: BatchShapes,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer that waits in a pipe would be taken for that to the next batch's question."""
    ended: list[int] = []

    class Silent:
        def ask(self, question: object) -> None: ...
        def end(self) -> None:
            ended.append(1)

    def cut_off(*_: object) -> ClippedSum:
        raise error

    team = Team(team_of(workspace).opening, 3, team_of(workspace).names)
    team._workers += [Silent(), Silent()]  # type: ignore[list-item]
    team.agreed.append("a study")
    monkeypatch.setattr(team_file, "clipped_gradient_sum", cut_off)
    with pytest.raises(error):
        team.clipped_sum(workspace.network, workspace.task, [], 0.5, shapes)
    assert (ended, team.workers, team.agreed) == ([1, 1], (), [])


class Pretended(Team):
    """Workers that answer what a test says, without a process."""

    depends: dict[str, object]
    total: ClippedSum | None = None  # None: the first's own

    @property
    def is_whole(self) -> bool:
        return True

    def asked(self, question: AskDepends) -> list[object]:
        return [self.depends]

    def sums(self, network: Network, task: Task, shares: object, *more: object) -> list[ClippedSum]:
        (own, same) = shares  # type: ignore[misc]
        assert own == same
        found = clipped_gradient_sum(network, task, own, *more)  # type: ignore[arg-type]
        return [found, self.total or found]


@pytest.fixture
def pretended(workspace: Workspace) -> Workspace:
    team = Pretended(team_of(workspace).opening, 2, team_of(workspace).names)
    team.depends = depends_on(workspace, PLAN, CONFIG, LIMIT)
    return replace(workspace, team=team)


def test_a_process_of_another_kind_is_refused_by_what_differs(
    pretended: Workspace, shapes: BatchShapes
) -> None:
    assert isinstance(pretended.team, Pretended)
    pretended.team.depends |= {"device": "another GPU", "shapes": "as its memory has room for"}
    with pytest.raises(RefusedError, match="process 2 of 2 differs from the first in device"):
        join(pretended, PLAN, CONFIG, shapes, LIMIT)
    assert pretended.team.agreed == []


@pytest.mark.parametrize("name", ["threads", "variables", "build", "base", "what only it lists"])
def test_every_part_of_a_proof_is_compared(
    pretended: Workspace, shapes: BatchShapes, name: str
) -> None:
    assert isinstance(pretended.team, Pretended)
    pretended.team.depends |= {name: "another"}
    with pytest.raises(RefusedError, match=f"differs from the first in {name}"):
        join(pretended, PLAN, CONFIG, shapes, LIMIT)


def test_what_was_compared_for_one_study_is_not_taken_for_another(
    pretended: Workspace, shapes: BatchShapes
) -> None:
    assert isinstance(pretended.team, Pretended)
    pretended.train_names(frozenset(pretended.start))
    join(pretended, PLAN, CONFIG, shapes, LIMIT)
    pretended.team.depends |= {"device": "another GPU"}
    join(pretended, PLAN, CONFIG, shapes, LIMIT)  # the same study: nothing is asked again
    others = [
        (replace(PLAN, max_grad_norm=0.25), CONFIG, shapes, LIMIT),
        (PLAN, replace(CONFIG, probe_rounds=1), shapes, LIMIT),
        (PLAN, CONFIG, one_by_one(16), LIMIT),
        (PLAN, CONFIG, shapes, 2 * LIMIT),
    ]
    for other in others:
        before = list(pretended.team.agreed)
        with pytest.raises(RefusedError, match=r"differs from the first in .*device"):
            join(pretended, *other)
        pretended.team.agreed[:] = before


def test_every_padded_length_is_tried_in_its_largest_pass(
    workspace: Workspace, shapes: BatchShapes
) -> None:
    tried = list(passes(joining._units(workspace, shapes), shapes))
    largest = {(edge, counts[-1]) for edge, counts in shapes.counts}
    assert len(shapes.counts) > 1
    assert {(one.shape.length, one.shape.rows) for one in tried} == largest


def test_a_process_with_other_bits_is_refused(pretended: Workspace, shapes: BatchShapes) -> None:
    assert isinstance(pretended.team, Pretended)
    pretended.train_names(frozenset(pretended.start))
    pretended.team.total = empty_sum(
        [p for _, p in trained_parameters(pretended.network)], PLAN.max_grad_norm or 0.0
    )
    with pytest.raises(RefusedError, match="another sum of the same synthetic records"):
        join(pretended, PLAN, CONFIG, shapes, LIMIT)
    assert pretended.team.agreed == []


def test_processes_have_a_gpu_each_or_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device_file.check_devices(torch.device("cuda"), 2)
    device_file.check_devices(torch.device("cpu"), 3)
    with pytest.raises(RefusedError, match=r"3 given.* finds 2 GPU"):
        device_file.check_devices(torch.device("cuda"), 3)
    assert MachineConfig(device="cuda", processes=2).processes == 2
    for device in ("cuda:1", "mps"):
        with pytest.raises(UsageError, match="one each"):
            MachineConfig(device=device, processes=2)


def test_each_worker_is_given_a_gpu_of_its_own_and_as_many_threads(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Opening] = []

    class Noted:
        is_alive = True

        def __init__(self, number: int, of: int) -> None:
            assert of == 3

        def ask(self, question: Opening) -> None:
            asked.append(question)

        def answer(self) -> None: ...
        def end(self) -> None: ...

    monkeypatch.setattr(team_file, "Worker", Noted)
    team = Team(team_of(workspace).opening, 3, frozenset())
    team.start(torch.device("cuda"))
    assert team.is_whole
    assert [one.device for one in asked] == ["cuda:1", "cuda:2"]
    assert {one.threads for one in asked} == {torch.get_num_threads()}
    team.start(torch.device("cpu"))
    assert [one.device for one in asked[2:]] == ["cpu", "cpu"]
    team.close()
    assert not team.is_whole
