"""Under a threshold, predictions keep the certain parts, for each task."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import DataError, UsageError
from cloister.serving import model as serving
from cloister.serving.abstention import HELD, Decided, abstaining, check_threshold
from cloister.serving.model import load
from cloister.serving.predictions import (
    Classified,
    Entity,
    Labelled,
    NearPassage,
    Retrieved,
    Tagged,
)
from cloister.tasks.config import TaskConfig
from cloister.tasks.registry import BUILT_IN
from tests.support.examples import tries
from tests.support.released import exported

shares = st.floats(0, 1, allow_nan=False)


@settings(max_examples=tries(60), deadline=None)
@given(share=shares, threshold=shares)
def test_a_label_is_given_from_the_threshold_on(share: float, threshold: float) -> None:
    probabilities = {"a": share, "b": 0.0}
    found = abstaining(Classified("a", probabilities, is_cut=True), threshold)
    assert isinstance(found, Decided)
    assert found.label == ("a" if share >= threshold else "")
    assert bool(found.reason) == (share < threshold)
    assert (found.confidence, found.probabilities, found.is_cut) == (share, probabilities, True)


@settings(max_examples=tries(60), deadline=None)
@given(found=st.lists(shares, max_size=5), threshold=shares)
def test_of_several_each_is_held_against_it(found: list[float], threshold: float) -> None:
    names = [f"l{n}" for n in range(len(found))]
    stays = [name for name, share in zip(names, found, strict=True) if share >= threshold]
    several = Labelled((), dict(zip(names, found, strict=True)), is_cut=False)
    near = [NearPassage(name, "text", share) for name, share in zip(names, found, strict=True)]
    entities = tuple(
        Entity("X", name, 2 * n, 2 * n + 2, 0, 1, share)
        for n, (name, share) in enumerate(zip(names, found, strict=True))
    )
    tagged = Tagged(entities, ("B-X", "I-X") * len(found), is_cut=False)
    assert list(abstaining(several, threshold).labels) == stays  # type: ignore[union-attr]
    passages = abstaining(Retrieved(tuple(near), is_cut=False), threshold).passages  # type: ignore[union-attr]
    assert [one.id for one in passages] == stays
    kept = abstaining(tagged, threshold)
    assert [one.text for one in kept.entities] == stays  # type: ignore[union-attr]
    expected = [tag for name in names for tag in (("B-X", "I-X") if name in stays else ("O", "O"))]
    assert list(kept.tags) == expected  # type: ignore[union-attr]


def test_a_task_without_probabilities_has_no_threshold() -> None:
    for kind in BUILT_IN:
        if kind in HELD:
            check_threshold(kind, 0.5)
        else:
            with pytest.raises(UsageError, match="no probability"):
                check_threshold(kind, 0.5)


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        check_threshold("sequence-classification", threshold)


def test_a_stream_predicts_as_a_list_does_and_takes_inputs_as_they_are_needed(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STREAMED", 3)
    model = load(exported(tmp_path, bert, TaskConfig(labels=("x", "y"), max_length=12)))
    texts = ["fever", "chest pain", "no rash", "knee", "itchy", "cough", "a mild headache"]
    taken = []

    def inputs() -> object:
        for text in texts:
            taken.append(text)
            yield text

    stream = model.stream(inputs())  # type: ignore[arg-type]
    first = next(stream)
    assert taken == texts[:3]
    found, whole = [first, *stream], model.predict(texts)
    assert [one.label for one in found] == [one.label for one in whole]  # type: ignore[union-attr]
    for one, other in zip(found, whole, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)  # type: ignore[union-attr]


def test_a_message_has_the_inputs_number_in_the_stream(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STREAMED", 2)
    model = load(exported(tmp_path, bert, TaskConfig(labels=("x", "y"), max_length=12)))
    with pytest.raises(DataError, match="input 4: empty"):
        list(model.stream(["fever", "rash", "knee", " "]))
