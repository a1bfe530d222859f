"""Packed units equal the original ones and take a few bytes per token."""

import pickle
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.tasks.task import Example
from cloister.training.packed import PackedUnits
from tests.support.examples import tries

ids = st.lists(st.integers(-1, 70_000) | st.integers(-(2**40), 2**40), max_size=5).map(tuple)
targets = (
    st.integers(-100, 2**33)
    | st.floats(0, 1)
    | st.lists(st.integers(-100, 9), max_size=5).map(tuple)
)
examples = st.builds(
    Example,
    ids,
    targets,
    reference=st.just(()) | st.just(("B-x", "O")),
    words=st.just(()) | st.just((1,)),
    rejected=st.none() | st.builds(Example, ids, st.just(1)),
)


@settings(max_examples=tries(100), deadline=None)
@given(st.lists(st.lists(examples, max_size=3).map(tuple), max_size=6), st.integers(-7, 7))
def test_what_was_added_is_there(units: list[tuple[Example, ...]], place: int) -> None:
    packed = PackedUnits(units)
    assert len(packed) == len(units)
    assert list(packed) == units
    assert packed == tuple(units)
    assert packed[:3] == tuple(units[:3])
    assert pickle.loads(pickle.dumps(packed)) == units
    if -len(units) <= place < len(units):
        assert packed[place] == units[place]
    if units:
        assert packed != units[1:]
        assert packed != (*units[1:], (Example((9,) * 6, 0),))


def test_an_id_beyond_two_bytes_widens_those_before_it() -> None:
    units = [(Example((5, 65_535), 0),), (Example((65_536,), 1),), (Example((7,), (0, -100)),)]
    assert PackedUnits(units) == units


def test_a_token_takes_two_bytes() -> None:
    packed = PackedUnits([(Example(tuple(range(1000, 1128)), 1),)] * 1000)
    taken = sum(sys.getsizeof(getattr(packed, name)) for name in vars(packed))
    # 256 of ids, 4 of a target, 25 of where they end; arrays grow by an eighth in advance.
    assert taken < 1000 * 330
