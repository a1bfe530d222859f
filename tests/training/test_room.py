"""The batch size follows the free memory and changes no bit of the result."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.head_inputs import HeadInputs
from cloister.models.kept_states import KeptStates
from cloister.recipe import parse_recipe
from cloister.tasks.config import TaskConfig
from cloister.training import free_memory, room
from cloister.training import joined_processes as joining
from cloister.training.free_memory import available, free_at_start
from cloister.training.joined_processes import join
from cloister.training.proof import prove
from cloister.training.proof_key import depends_on, shapes_to_try
from cloister.training.room import CPU_TOKENS, LEAST_TOKENS, kept_values, room_for
from cloister.training.shapes import candidates, one_by_one
from cloister.training.team import AskDepends, Opening, Team
from cloister.training.workspace import Workspace
from tests.support.isolation import CONFIG, PLAN, random_units, summing, wide_workspace

ABSENT = replace(CONFIG, physical_batch_tokens=None)
CPU = torch.device("cpu")


@pytest.fixture
def workspace(bases: Callable[[str], Path]) -> Workspace:
    return wide_workspace(bases("llama"), "causal-lm")


def with_free(monkeypatch: pytest.MonkeyPatch, size: float | None) -> None:
    found = None if size is None else int(size)
    monkeypatch.setattr(room, "free_at_start", lambda device: found)


def test_more_memory_is_more_at_once_within_bounds(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (0, 2**29, 2**30, 2**32, 2**50):
        with_free(monkeypatch, size)
        found.append(room_for(workspace, ABSENT))
    assert found == sorted(found, key=lambda one: (one.tokens, one.rows))
    assert {found[0].tokens, found[-1].tokens} == {LEAST_TOKENS, CPU_TOKENS}
    assert found[0].rows == 1
    for one in found:
        assert one.rows is not None
        assert one.tokens.bit_count() == one.rows.bit_count() == 1
    with_free(monkeypatch, None)  # where nothing tells, as much as before
    assert room_for(workspace, ABSENT) == room.Room(CPU_TOKENS, None)


def test_processes_on_a_cpu_share_its_memory(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Opening(ModelConfig(), LoraConfig(), TaskConfig(), (), 0, 0.0, None, False)
    three = replace(workspace, team=Team(opening, 3, frozenset()))
    with_free(monkeypatch, 2**29)
    alone = room_for(workspace, ABSENT)
    with_free(monkeypatch, 3 * 2**29)
    assert room_for(three, ABSENT) == alone
    assert room_for(workspace, ABSENT) != alone


def test_the_cache_of_a_head_s_inputs_takes_room_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cache in (None, HeadInputs((), KeptStates(), 0.0)):
        monkeypatch.setattr(workspace.network, "head_inputs", cache)
        tokens = []
        for size in (2**29, 3 * 2**28, 2**30, 3 * 2**29):
            with_free(monkeypatch, size)
            tokens.append(room_for(workspace, ABSENT).tokens)
        found.append(tokens)
    assert sum(found[1]) < sum(found[0])


def test_what_was_chosen_fits_what_is_free(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = sum(p.numel() * 4 for p in workspace.network.parameters())
    with_free(monkeypatch, 2**29 + base + 2**25)  # beside what logits may take
    found = room_for(workspace, ABSENT)
    assert found.rows is not None
    of_token = 4 * kept_values(workspace.network, workspace.task.max_length)
    assert found.tokens > LEAST_TOKENS
    assert found.tokens * of_token + 4 * found.rows * workspace.start.size <= 2**25 / 2


def test_a_token_keeps_no_more_than_is_reckoned_with(workspace: Workspace) -> None:
    """Counted as torch saves it, each piece of memory once, beside the base's own."""
    network = workspace.network
    units = random_units(workspace, 4, seed=0)
    batch = workspace.task.collate([unit[0] for unit in units])
    owned = {p.untyped_storage().data_ptr() for p in network.parameters()}
    sizes: dict[int, int] = {}
    held = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)  # so that its memory is no other's meanwhile
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network.base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)  # type: ignore[operator]
    kept = sum(size for at, size in sizes.items() if at not in owned)
    reckoned = 4 * kept_values(network, workspace.task.max_length) * batch.input_ids.numel()
    assert reckoned / 3 < kept <= reckoned


def test_in_any_choice_a_batch_is_the_sum_of_its_units_to_the_last_bit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each choice no contribution follows from companions, and no part of a batch is lost.

    Choices differ by a rounding, as machines do: few rows may be another kernel than many.
    """
    units = random_units(workspace, 9, seed=2, most=2)
    base = sum(p.numel() * 4 for p in workspace.network.parameters())
    sums = []
    for size in (0, 2**29 + base + 2**21, 2**50):
        with_free(monkeypatch, size)
        shapes = prove(workspace, PLAN, ABSENT).shapes
        assert shapes.one_by_one == (not size)
        total = summing(workspace, shapes)
        alone = sum((total([unit]) for unit in units), torch.zeros(1, dtype=torch.int64))
        sums.append(total(units))
        assert torch.equal(sums[-1], alone)
    *fewer, many = sums
    for one in fewer:
        assert (one - many).double().norm() <= 1e-5 * many.double().norm()


def test_what_a_machine_states_is_taken(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 0)
    stated = replace(CONFIG, physical_batch_tokens=512)
    assert shapes_to_try(workspace, stated) == candidates(workspace.task.max_length, 512)
    assert shapes_to_try(workspace, ABSENT) == candidates(workspace.task.max_length, 64, 1)


def test_rows_are_bounded_beside_tokens() -> None:
    found = candidates(32, 512, 4)
    assert found.rows(8) == (1, 2, 4)
    assert candidates(32, 16, 4).rows(32) == (1,)
    assert candidates(32, 512, 1).one_by_one


def test_it_is_looked_at_once_so_that_no_record_can_move_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free_memory._first.cache_clear()
    told = iter([10, 5])
    monkeypatch.setattr(free_memory, "available", lambda: next(told))
    assert [free_at_start(CPU), free_at_start(CPU)] == [10, 10]
    monkeypatch.setattr(free_memory, "free_bytes", lambda device: 7 + device.index)
    assert free_at_start(torch.device("cuda")) == free_at_start(torch.device("cuda:0")) == 7
    assert free_at_start(torch.device("cuda:1")) == 8
    free_memory._first.cache_clear()


class Other:
    """A second process, where other memory is free."""

    processes, is_whole = 2, True

    def __init__(self, answer: Callable[[AskDepends], object]) -> None:
        self.agreed: list[object] = []
        self.answer = answer

    def asked(self, question: AskDepends) -> list[object]:
        return [self.answer(question)]

    def close(self) -> None:
        pass


def test_processes_agree_whatever_each_of_them_finds_free(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(question: AskDepends) -> object:
        with_free(monkeypatch, 0)
        return depends_on(workspace, question.plan, question.config, question.max_adapter_value)

    other = Other(answer)
    monkeypatch.setattr(joining, "_check_sums", lambda *arguments: None)
    with_free(monkeypatch, 2**50)
    shapes = one_by_one(workspace.task.max_length)
    join(replace(workspace, team=other), PLAN, ABSENT, shapes, 1.0)  # type: ignore[arg-type]
    assert len(other.agreed) == 1


def test_plain_passes_are_cut_by_a_constant() -> None:
    """They are rounded by their companions, so that free memory would show in their scores."""
    recipe = parse_recipe("")
    assert recipe.machine.physical_batch_tokens is None
    assert recipe.machine.plain_tokens == ABSENT.plain_tokens == 2048
    stated = parse_recipe("", ["machine.physical_batch_tokens=64"])
    assert stated.machine.plain_tokens == 64
    assert stated.digest() == recipe.digest()
    assert parse_recipe(recipe.to_toml()).machine == recipe.machine


def written(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMORY = "MemTotal: 16000 kB\nMemFree: 1 kB\nMemAvailable:    8000 kB\n"


def test_available_memory_is_the_kernel_s_and_the_groups(tmp_path: Path) -> None:
    assert available(tmp_path) is None
    written(tmp_path, proc__meminfo=MEMORY)
    assert available(tmp_path) == 8000 * 1024
    written(tmp_path, proc__self__cgroup="0::/a/b\n")
    group = tmp_path / "sys/fs/cgroup/a"
    (group / "b").mkdir(parents=True)
    (group / "b/memory.max").write_text("max\n")
    (group / "b/memory.current").write_text("3000\n")
    assert available(tmp_path) == 8000 * 1024
    (group / "memory.max").write_text("100000\n")  # of the group around it
    (group / "memory.current").write_text("70000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 20000\n")
    assert available(tmp_path) == 50000
    (group / "memory.current").write_text("170000\n")
    assert available(tmp_path) == 0


def test_available_memory_under_the_first_version_of_groups(tmp_path: Path) -> None:
    written(tmp_path, proc__meminfo=MEMORY, proc__self__cgroup="9:cpu:/x\n4:memory:/a\n")
    group = tmp_path / "sys/fs/cgroup/memory/a"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    (group / "memory.usage_in_bytes").write_text("1000\n")
    assert available(tmp_path) == 8000 * 1024
    (group / "memory.limit_in_bytes").write_text("9000\n")
    assert available(tmp_path) == 8000
