"""Physical batches hold everything once, within their tokens."""

from hypothesis import given
from hypothesis import strategies as st

from cloister.tasks.task import Example
from cloister.training.batches import physical_batches

examples = st.lists(st.integers(1, 30), max_size=40).map(
    lambda lengths: [Example(tuple(range(n)), i) for i, n in enumerate(lengths)]
)


@given(examples, st.integers(1, 120))
def test_every_record_once_and_never_more_tokens_than_allowed(
    given_examples: list[Example], limit: int
) -> None:
    batches = list(physical_batches(given_examples, limit))
    assert sorted(e.target for batch in batches for e in batch) == list(range(len(given_examples)))
    for batch in batches:
        padded = max(len(e.input_ids) for e in batch) * len(batch)
        assert padded <= limit or len(batch) == 1


@given(examples)
def test_neighbours_in_a_batch_are_of_similar_length(given_examples: list[Example]) -> None:
    lengths = [len(e.input_ids) for b in physical_batches(given_examples, 60) for e in b]
    assert lengths == sorted(lengths, reverse=True)
