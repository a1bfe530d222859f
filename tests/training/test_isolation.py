"""A unit's contribution depends on that unit only, bit for bit; broken code is found.

Each test proves the shapes on this machine first, as a study does, and then looks at whole sums by
another way: the sum over the others, which must not move by one step of the grid when a unit goes.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cloister.models import network as network_file
from cloister.models.kept_states import KeptStates
from cloister.privacy.clipping import grid_of
from cloister.tasks.task import BatchShape, Example
from cloister.training import gradients
from cloister.training.passes import Pass, Row
from cloister.training.proof import prove
from cloister.training.shapes import BatchShapes, candidates
from cloister.training.units import UnitExamples
from cloister.training.workspace import Workspace
from tests.support.isolation import (
    BOUND,
    CONFIG,
    LONGEST,
    PLAN,
    movement,
    random_units,
    summing,
    wide_workspace,
)

STEPS = BOUND / grid_of(BOUND)  # the bound in steps of the grid

CASES: list[tuple[str, str, dict[str, str]]] = [
    ("bert", "sequence-classification", {}),
    ("bert", "sequence-classification", {"head": "lora", "train": "b"}),
    ("bert", "token-classification", {}),
    ("bert", "retrieval", {"head": "linear"}),
    ("gpt2", "causal-lm", {}),
    ("gpt2", "sequence-classification", {"head": "frozen"}),
    ("llama", "causal-lm", {}),
    ("llama", "sequence-classification", {}),
]


# Kernels are those of a family and a dtype: single precision is tried once a family and with the
# heads of BERT, half precision with one family.
ONCE: dict[str, dict[str, tuple[str, ...]]] = {
    "float32": {
        "bert": ("sequence-classification", "token-classification"),
        "gpt2": ("causal-lm",),
        "llama": ("causal-lm",),
    },
    "bfloat16": {"llama": ("causal-lm",)},
}


def every_night(case: tuple[str, str, dict[str, str]], dtype: str) -> list[pytest.MarkDecorator]:
    family, kind, lora = case
    is_quick = kind in ONCE[dtype].get(family, ()) and not lora
    return [] if is_quick else [pytest.mark.nightly]


@pytest.mark.parametrize(
    ("family", "kind", "lora", "dtype"),
    [
        pytest.param(*case, dtype, marks=every_night(case, dtype))
        for dtype in ("float32", "bfloat16")
        for case in CASES
    ],
)
def test_companions_slots_and_rows_change_no_bit(
    bases: Callable[[str], Path], family: str, kind: str, lora: dict[str, object], dtype: str
) -> None:
    workspace = wide_workspace(bases(family), kind, dtype=dtype, **lora)
    proof = prove(workspace, PLAN, CONFIG)
    assert not proof.one_by_one
    # BERT's own pooler has a row a record: fewer than 4 run another kernel, and are left out.
    assert all(rows[-1] >= 4 for _, rows in proof.shapes.counts)
    assert any(len(rows) > 1 for _, rows in proof.shapes.counts)
    assert_isolated(workspace, proof.shapes, seed=0)


@pytest.mark.parametrize(
    ("family", "kind", "dtype"),
    [
        ("bert", "sequence-classification", "float32"),
        pytest.param("llama", "causal-lm", "bfloat16", marks=pytest.mark.nightly),
        pytest.param("bert", "sequence-classification", "bfloat16", marks=pytest.mark.nightly),
        pytest.param("llama", "causal-lm", "float32", marks=pytest.mark.nightly),
    ],
)
def test_kept_states_of_frozen_layers_change_no_bit(
    bases: Callable[[str], Path], family: str, kind: str, dtype: str
) -> None:
    """Whichever units drew them first: kept, computed anew, and not kept at all are the same."""
    about = {"top_layers": 1, "dtype": dtype}
    kept = wide_workspace(bases(family), kind, cache=1.0, **about)  # type: ignore[arg-type]
    shapes = prove(kept, PLAN, CONFIG).shapes
    none = wide_workspace(bases(family), kind, **about)  # type: ignore[arg-type]
    assert kept.network.prefix is not None
    assert none.network.prefix is None
    units = random_units(kept, 60, seed=5, most=3)
    expected = summing(none, shapes)(units)
    summed = summing(kept, shapes)
    for first in (units[:7], units[::3], units):  # what is kept came beside changing companions
        summed(first)
        assert torch.equal(summed(units), expected)
    states = kept.network.prefix._kept._states.values()
    assert {state.dtype for state in states} == {kept.network.base.dtype}  # two bytes in bfloat16
    assert_isolated(kept, shapes, seed=6)


def test_two_threads_change_no_bit(bases: Callable[[str], Path]) -> None:
    workspace = wide_workspace(bases("bert"), "sequence-classification")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        few = replace(CONFIG, physical_batch_tokens=80)  # two threads wait for each other
        shapes = prove(workspace, PLAN, few).shapes
        units = random_units(workspace, 12, seed=2, most=3)
        assert movement(summing(workspace, shapes), units, (0, 7))[0] == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [pytest.param(1.0, marks=pytest.mark.nightly), 100.0])
def test_large_adapters_change_no_bit(bases: Callable[[str], Path], size: float) -> None:
    """Values up to what a site takes, where rounding moved others by 10⁻³ of the bound before."""
    workspace = wide_workspace(bases("bert"), "sequence-classification")
    shapes = prove(workspace, PLAN, CONFIG).shapes
    with torch.no_grad():
        for parameter in workspace.network.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.empty_like(parameter).uniform_(-size, size))
    assert_isolated(workspace, shapes, seed=3)


def assert_isolated(workspace: Workspace, shapes: BatchShapes, seed: int) -> None:
    """Records, then persons of mixed lengths with up to 20 records, more than a batch holds."""
    summed = summing(workspace, shapes)
    draw = random.Random(seed)
    for count, most in ((40, 1), (8, 20)):
        units = random_units(workspace, count, seed, most)
        others, whole = movement(summed, units, draw.sample(range(count), 3))
        assert others == 0
        assert 0.5 * STEPS < whole <= STEPS


# --- the whole sum, at the real size ----------------------------------------------------------


def search(
    workspace: Workspace, summed: Callable[[Sequence[UnitExamples]], Tensor], count: int = 300
) -> tuple[int, float]:
    """The worst movement that an adversary finds who chooses lengths and the unit that leaves.

    Removing the longest unit re-cuts every shorter one under the old way; removing one of a full
    pass changes the row counts of its edge; a unit alone in its edge opens a pass of its own.
    """
    worst = (0, 0.0)
    for seed, full in ((11, True), (12, False)):
        units = random_units(workspace, count, seed, full=full)
        by_length = sorted(range(count), key=lambda index: len(units[index][0].input_ids))
        chosen = [by_length[-1], by_length[0], by_length[count // 2]]
        found = movement(summed, units, chosen)
        worst = (max(worst[0], found[0]), max(worst[1], found[1]))
    return worst


def test_one_unit_of_three_hundred_moves_the_sum_by_the_bound_and_the_others_by_nothing(
    real: tuple[Workspace, BatchShapes],
) -> None:
    workspace, shapes = real
    others, whole = search(workspace, summing(workspace, shapes))
    assert others == 0
    assert 0.5 * STEPS < whole <= STEPS


def padded_to_the_longest_of_a_mixed_batch(
    units: Sequence[UnitExamples], shapes: BatchShapes
) -> Iterator[Pass]:
    """The old cut: longest first, 512 tokens a batch."""
    rows = [Row(n, example) for n, unit in enumerate(units) for example in unit]
    rows.sort(key=lambda row: len(row.example.input_ids), reverse=True)
    while rows:
        length = len(rows[0].example.input_ids)
        count = max(512 // length, 1)
        group, rows = rows[:count], rows[count:]
        yield Pass(BatchShape(len(group), length, (len(group),)), tuple(group))


def test_padding_to_the_longest_of_the_batch_is_caught(
    real: tuple[Workspace, BatchShapes], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, shapes = real
    monkeypatch.setattr(gradients, "passes", padded_to_the_longest_of_a_mixed_batch)
    others, _ = search(workspace, summing(workspace, shapes))
    assert others > 0


# --- tests of the tests: one rule broken at a time --------------------------------------------


def moved_others(workspace: Workspace, shapes: BatchShapes, units: list[UnitExamples]) -> int:
    return movement(summing(workspace, shapes), units, range(0, len(units), 5))[0]


def test_row_counts_that_do_not_agree_are_caught(
    real: tuple[Workspace, BatchShapes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head with one to three rows runs another kernel: not proven, and seen in a sum."""
    workspace, _ = real
    monkeypatch.setattr(network_file, "HEAD_ROWS", 1)
    units = random_units(workspace, 30, seed=4)
    assert moved_others(workspace, candidates(LONGEST, 256), units) > 0
    proven = prove(workspace, PLAN, CONFIG).shapes
    assert all(1 not in rows or rows == (1,) for _, rows in proven.counts)
    assert moved_others(workspace, proven, units) == 0


def test_a_person_s_records_added_in_the_batch_s_order_are_caught(
    real: tuple[Workspace, BatchShapes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partial sums a batch: where a person's records are cut apart depends on who else is there."""
    workspace, shapes = real
    rows_of = gradients._rows

    def by_batch(network, task, group, parameters, failed):  # type: ignore[no-untyped-def]
        for rows, found in rows_of(network, task, group, parameters, failed):
            owners = list(dict.fromkeys(row.unit for row in rows))
            sums = [
                torch.stack(
                    [
                        g[[at for at, r in enumerate(rows) if r.unit == unit]].sum(dim=0)
                        for unit in owners
                    ]
                )
                for g in found
            ]
            first = {row.unit: row for row in reversed(rows)}
            yield tuple(first[unit] for unit in owners), sums

    units = random_units(workspace, 12, seed=7, most=20)
    assert moved_others(workspace, shapes, units) == 0
    monkeypatch.setattr(gradients, "_rows", by_batch)
    assert moved_others(workspace, shapes, units) > 0


def test_dummies_that_contribute_are_caught(
    real: tuple[Workspace, BatchShapes], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, shapes = real
    record_gradients = gradients.record_gradients

    def with_dummies(network, task, group, parameters):  # type: ignore[no-untyped-def]
        dummy = Example((0,), 0)
        more = [Row(group.rows[-1].unit, dummy)] * (group.shape.rows - len(group.rows))
        filled = Pass(group.shape, (*group.rows, *more))
        found = record_gradients(network, task, filled, parameters)
        last = len(group.rows) - 1
        return [torch.cat([g[:last], g[last:].sum(dim=0, keepdim=True)]) for g in found]

    monkeypatch.setattr(gradients, "record_gradients", with_dummies)
    assert moved_others(workspace, shapes, random_units(workspace, 30, seed=8)) > 0


def test_attention_without_any_padding_is_never_a_matter_of_companions(
    real: tuple[Workspace, BatchShapes],
) -> None:
    """Records as long as an edge: transformers leaves the mask out where a batch has no padding."""
    workspace, shapes = real
    draw = random.Random(9)
    batch = random_units(workspace, 1, seed=9)[0][0]
    ids = [tuple(draw.choice(batch.input_ids) for _ in range(16)) for _ in range(9)]
    units: list[UnitExamples] = [(Example(one, 1),) for one in ids]
    seen: list[bool] = []
    handle = workspace.network.backbone.register_forward_pre_hook(
        lambda _, __, keywords: seen.append(bool(keywords["attention_mask"].all())),
        with_kwargs=True,
    )
    try:
        assert moved_others(workspace, shapes, units) == 0
    finally:
        handle.remove()
    assert seen
    assert not any(seen)


def test_frozen_states_from_mixed_shapes_are_caught(
    bases: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that were first computed at another padded length, and kept for all lengths."""
    workspace = wide_workspace(bases("bert"), "sequence-classification", cache=1.0, top_layers=1)
    shapes = prove(workspace, PLAN, CONFIG).shapes
    units = random_units(workspace, 40, seed=10)
    expected = summing(workspace, shapes)(units)
    prefix = workspace.network.prefix
    assert prefix is not None
    longest = BatchShape(64, LONGEST, (64,))
    monkeypatch.setattr(prefix, "_kept", KeptStates())
    batch = workspace.task.collate([unit[0] for unit in units], longest)
    workspace.network.logits(batch)
    mixed = prefix._kept
    assert torch.equal(summing(workspace, shapes)(units), expected)  # kept apart by length
    get = mixed.get
    monkeypatch.setattr(mixed, "get", lambda record, *_, **__: get(record, (LONGEST, (64,))))
    assert not torch.equal(summing(workspace, shapes)(units), expected)
