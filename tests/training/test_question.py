"""What a question holds: what has changed since the seed, in the type in which it is kept."""

from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.formats import Dtype
from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.errors import AdapterFormatError
from cloister.training.config import TrainingConfig
from cloister.training.question import Question, question_of
from tests.support.studies import small_workspace

RNG = np.random.default_rng(0)
START = Adapter({"a": RNG.normal(size=(3, 4)), "b": np.zeros((5, 3)), "head.w": np.zeros((2, 9))})
HEAD, ALL = frozenset({"head.w"}), frozenset(START)
# Two rounds of the head alone, then all.
TRAINED = (HEAD, HEAD, ALL, ALL)


def question(dtype: Dtype | None = "int8", *, from_seed: bool = True) -> Question:
    return Question(START, TRAINED, dtype, from_seed)


def stepped(adapter: Adapter, names: frozenset[str]) -> Adapter:
    moved = {name: adapter[name] + RNG.normal(size=adapter[name].shape) for name in names}
    return adapter.replace(Adapter(moved))


def bits(adapter: Adapter) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in adapter.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", None])
@pytest.mark.parametrize("from_seed", [True, False])
def test_sites_and_coordinator_hold_equal_bits_in_every_round(
    dtype: Dtype | None, from_seed: bool
) -> None:
    """A site that missed rounds reads the next question as well: none needs an earlier one."""
    sent, site = question(dtype, from_seed=from_seed), question(dtype, from_seed=from_seed)
    adapter = START if from_seed else stepped(START, ALL)
    for number in range(1, 7):
        payload = sent.encode(adapter, number)
        assert bits(site.decode(payload, number)) == bits(adapter)
        names = TRAINED[min(number, len(TRAINED)) - 1]
        if number != 3:  # a round that was skipped: nothing moves, yet more may travel next
            adapter = stepped(adapter, names)
        adapter = sent.rounded(adapter, number)


def test_what_no_round_has_trained_does_not_travel() -> None:
    lengths = []
    adapter = START
    for number in range(1, 6):
        lengths.append(len(question().encode(adapter, number)))
        adapter = question().rounded(stepped(adapter, TRAINED[min(number, 4) - 1]), number)
    head, whole = 18 + 4, START.size + 3 * 4
    assert lengths == [75, 75 + head, 75 + head, 75 + whole, 75 + whole]


def test_a_tensor_that_somebody_moved_before_its_round_travels_too() -> None:
    """As a strategy of one's own might; then all tensors are kept as they are sent."""
    moved = question().rounded(stepped(START, ALL), 1)
    payload = question().encode(moved, 2)
    assert len(payload) > 75 + START.size
    assert bits(question().decode(payload, 2)) == bits(moved)


def test_a_first_round_from_another_adapter_is_exact_and_as_the_study_names_it() -> None:
    adapter = stepped(START, ALL)
    payload = question(from_seed=False).encode(adapter, 1)
    assert payload == encode(adapter)  # whose SHA-256 is `study.start`
    with pytest.raises(AdapterFormatError):
        question(from_seed=True).decode(payload, 1)


def test_a_site_with_another_start_refuses() -> None:
    other = Question(START.scale(1 + 1e-6), TRAINED, "int8", True)
    with pytest.raises(AdapterFormatError, match="with which the study begins"):
        other.decode(question().encode(START, 1), 1)


def test_without_the_setting_nothing_changes() -> None:
    adapter = stepped(START, ALL)
    plain = question(None)
    assert plain.encode(adapter, 2) == encode(adapter)
    assert plain.rounded(adapter, 1) is adapter


def test_factors_that_alternate_travel_once_they_were_trained(bert: Path) -> None:
    workspace = small_workspace(bert, train="alternate")
    config = TrainingConfig(adapter_dtype="int8", probe_rounds=1)
    asked = question_of(workspace, config, from_seed=True)
    sizes = [asked.start.select(asked._moved(number)).size for number in range(1, 6)]
    assert sizes[0] == 0
    assert 0 < sizes[1] < sizes[2] < sizes[3] == sizes[4] == workspace.whole.size
