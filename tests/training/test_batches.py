"""Physical batches hold everything once, within their tokens, and keep units together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cloister.tasks.task import Example
from cloister.training.batches import CPU_PASS, physical_batches, tokens_of_a_pass
from cloister.training.config import PLAIN_TOKENS
from cloister.training.units import UnitExamples


def numbered(sizes: list[list[int]]) -> list[UnitExamples]:
    """Units of records of these lengths; a record's target is its unit's number."""
    return [
        tuple(Example(tuple(range(length)), number) for length in unit)
        for number, unit in enumerate(sizes)
    ]


units = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), max_size=40).map(numbered)


@given(units, st.integers(1, 120))
def test_every_unit_once_and_never_more_tokens_than_allowed(
    given_units: list[UnitExamples], limit: int
) -> None:
    batches = list(physical_batches(given_units, limit))
    drawn = [unit for batch in batches for unit in batch]
    assert sorted(drawn, key=lambda u: u[0].target) == given_units  # type: ignore[return-value, arg-type]
    for batch in batches:
        records = [record for unit in batch for record in unit]
        padded = max(len(r.input_ids) for r in records) * len(records)
        assert padded <= limit or len(batch) == 1


@given(units)
def test_neighbours_in_a_batch_are_of_similar_length(given_units: list[UnitExamples]) -> None:
    longest = [
        max(len(record.input_ids) for record in unit)
        for batch in physical_batches(given_units, 60)
        for unit in batch
    ]
    assert longest == sorted(longest, reverse=True)


@given(st.integers(1, 64))
def test_a_cpu_s_passes_are_small_for_each_thread_and_a_gpu_s_are_large(threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        on_cpu = tokens_of_a_pass(torch.device("cpu"))
        assert on_cpu == min(CPU_PASS * threads, PLAIN_TOKENS)
        assert tokens_of_a_pass(torch.device("cuda")) == PLAIN_TOKENS >= on_cpu
