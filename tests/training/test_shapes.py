"""Shapes are a finite public list, and every record is in exactly one pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.tasks.task import Example
from cloister.training.passes import passes
from cloister.training.proof import Proof
from cloister.training.shapes import (
    PASS_TOKENS,
    BatchShapes,
    candidates,
    cost,
    cut,
    edges,
    one_by_one,
)
from cloister.training.units import UnitExamples


def test_edges_follow_from_the_longest_record_alone() -> None:
    assert edges(64) == (8, 16, 24, 32, 40, 48, 56, 64)
    assert edges(128) == (*edges(64), 80, 96, 112, 128)
    assert edges(50) == (8, 16, 24, 32, 40, 48, 50)  # a base of 50 positions takes no 56
    assert edges(5) == (5,)


def test_stated_lengths_replace_the_edges() -> None:
    shapes = candidates(80, 256, padded=(72, 80))
    assert shapes.counts == ((72, (1, 2)), (80, (1, 2)))
    assert [shapes.edge(length) for length in (1, 72, 73, 80)] == [72, 72, 80, 80]
    assert candidates(80, 256) == candidates(80, 256, padded=edges(80))


@given(st.integers(1, 4096))
def test_an_edge_pads_by_at_most_seven_tokens_or_a_quarter(length: int) -> None:
    edge = candidates(4096, 8192).edge(length)
    assert edge - length <= max(7, length / 4)


@given(
    st.lists(st.booleans(), max_size=300),
    st.sampled_from([(1,), (1, 2, 4, 8), (2, 8), (4,), (8, 16, 64), (1, 32)]),
    st.sampled_from([8, 40, 128]),
)
def test_a_cut_takes_every_record_once_and_no_pass_is_without_padding(
    full: list[bool], counts: tuple[int, ...], edge: int
) -> None:
    at = 0
    for rows, taken in cut(full, counts, edge):
        assert rows in counts
        assert 1 <= taken <= rows
        if counts != (1,):
            assert taken < rows or not all(full[at : at + taken])
        at += taken
    assert at == len(full)


units = st.lists(st.lists(st.integers(1, 64), max_size=5), max_size=40).map(
    lambda sizes: [
        tuple(Example((7,) * length, at) for at, length in enumerate(unit)) for unit in sizes
    ]
)


@given(units, st.sampled_from([candidates(64, 256), one_by_one(64), candidates(64, 16)]))
def test_a_record_s_shape_and_a_unit_s_order_follow_from_the_unit_alone(
    given_units: list[UnitExamples], shapes: BatchShapes
) -> None:
    seen: dict[int, list[tuple[int, int]]] = {}
    for group in passes(given_units, shapes):
        for row in group.rows:
            assert group.shape.length == shapes.edge(len(row.example.input_ids))
            target = row.example.target
            assert isinstance(target, int)
            seen.setdefault(row.unit, []).append((group.shape.length, target))
    for number, unit in enumerate(given_units):
        alone = [
            (group.shape.length, row.example.target)
            for group in passes([unit], shapes)
            for row in group.rows
        ]
        assert seen.get(number, []) == alone
        assert len(alone) == len(unit)


def test_the_cheapest_cut_takes_no_more_tokens_than_one_pass() -> None:
    counts = (1, 2, 4, 8, 16, 32)
    for records in range(1, 33):
        chosen = cut([False] * records, counts, 64)
        assert sum(rows for rows, _ in chosen) <= min(c for c in counts if c >= records)


def test_a_cut_costs_what_its_passes_do() -> None:
    counts = (1, 2, 4, 8, 16, 32)
    for records in range(1, 70):
        passes = cut([False] * records, counts, 24)
        assert cost(records, counts, 24) == sum(24 * rows + PASS_TOKENS for rows, _ in passes)
    assert cost(6, (8,), 16) < cost(6, (1,), 16) < cost(6, (64,), 16)
    # Full records need a row of padding beside them: of two rows one is a dummy.
    assert cost(6, (2,), 64) < cost(6, (1,), 64) < cost(6, (2,), 64, full=True)


def test_a_record_beyond_the_last_edge_has_no_shape() -> None:
    with pytest.raises(ValueError, match="the longest shape has 64"):
        candidates(64, 256).edge(65)


def test_shapes_and_proofs_come_back_from_json() -> None:
    shapes = BatchShapes(((8, (1, 2)), (16, (1,))), threads=2)
    proof = Proof(
        shapes, ((8, 1, 0.5), (8, 2, 0.25), (16, 1, 1.0)), 1234, "ab" * 32, "2026-11-30 12:50"
    )
    assert Proof.from_json(json.loads(json.dumps(proof.to_json()))) == proof
    assert proof.seconds_of(10) == 1.0 + 10 * 1.0
    assert not proof.one_by_one
    assert one_by_one(64).one_by_one
