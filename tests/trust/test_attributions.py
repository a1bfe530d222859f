"""Attributions agree with known derivatives, and sum up for networks of every task."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cloister.models.network import Network
from cloister.serving.inputs import Input
from cloister.serving.word_spans import spans_in
from cloister.tasks.config import TaskConfig
from cloister.trust.explain.faithfulness import area, by_chance, faithfulness
from cloister.trust.explain.gradients import integrated_gradients
from cloister.trust.explain.occlusion import occlusion
from cloister.trust.explain.pieces import Piece, pieces_of
from cloister.trust.explain.reading import Figure, ModelReading
from cloister.trust.explain.readings import log_odds, readings_of
from cloister.trust.explain.rollout import attention_rollout, rolled
from cloister.trust.opening import Opened, open_run
from tests.support.released import exported

TEXT = "the patient has severe chest pain and fever"
TASKS: dict[str, tuple[TaskConfig, Input]] = {
    "one label": (TaskConfig(labels=("x", "y", "z"), max_length=16), TEXT),
    "pairs": (TaskConfig(kind="text-pairs", labels=("x", "y"), max_length=16), (TEXT, "no rash")),
    "labels": (
        TaskConfig(kind="multi-label-classification", labels=("x", "y"), max_length=16),
        TEXT,
    ),
    "score": (TaskConfig(kind="scoring", score_range=(0.0, 5.0), max_length=16), TEXT),
    "entities": (
        TaskConfig(kind="token-classification", labels=("BODY", "SIGN"), max_length=16),
        TEXT,
    ),
    "reply": (TaskConfig(kind="causal-lm", max_length=24), "chest pain and fever"),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, bert: Path, llama: Path) -> dict[str, Opened]:
    place = tmp_path_factory.mktemp("opened")
    return {
        name: open_run(exported(place / name, llama if name == "reply" else bert, task))
        for name, (task, _) in TASKS.items()
    }


def toy(figure: Figure, tokens: int = 5) -> ModelReading:
    """A reading of drawn embeddings, one token a piece but for the first, which is special."""
    drawn = torch.randn(2, tokens, 3, generator=torch.Generator().manual_seed(1))
    embedded, blank = drawn
    blank[0] = embedded[0]
    pieces = tuple(Piece(f"w{place}", (place,)) for place in range(1, tokens))
    words = {"answer": "yes", "name": "figure", "group": "yes", "inputs": {}}
    return ModelReading(
        pieces, embedded, blank, figure, torch.sigmoid, read_at=blank[:, 0], **words
    )  # type: ignore[arg-type]


def test_a_linear_figure_is_attributed_exactly() -> None:
    weights = torch.tensor([[0.0], [1.0], [-2.0], [3.0], [0.5]])

    def figure(embeddings: Tensor) -> Tensor:
        return (embeddings * weights).sum(dim=(1, 2))

    reading = toy(figure)
    expected = (weights * (reading.embedded - reading.blank)).sum(dim=1)[1:]
    for found in (integrated_gradients(reading), occlusion(reading)):
        # Sums of 15 products in single precision.
        assert torch.allclose(found.values, expected, atol=1e-5)


def test_a_curved_figure_is_attributed_completely_and_refined_until_it_is() -> None:
    plain = toy(lambda embeddings: embeddings.sum(dim=(1, 2)))
    start, end = float(plain.blank.sum()), float(plain.embedded.sum())

    def figure(embeddings: Tensor) -> Tensor:
        way = (embeddings.sum(dim=(1, 2)) - start) / (end - start)
        return torch.relu(way - 0.37)  # the bend is between two nodes: 16 steps miss it

    reading = toy(figure)
    found = integrated_gradients(reading)
    difference = 1 - 0.37
    assert found.steps is not None
    assert found.steps > 16
    assert float(found.values.sum()) - difference == pytest.approx(found.gap, abs=1e-3)
    assert abs(found.gap or 0) <= 0.01 * difference


@pytest.mark.parametrize("name", TASKS)
def test_attributions_of_a_network_sum_to_the_difference(
    opened: dict[str, Opened], name: str
) -> None:
    model, given = opened[name].model, TASKS[name][1]
    readings = readings_of(model, given, model.predict([given])[0])
    assert readings
    for reading in readings:
        found = integrated_gradients(reading)
        ends = reading.figures(torch.cat([reading.whole, ~reading.whole]))
        assert float(ends[0]) != pytest.approx(float(ends[1]), abs=1e-6)
        # The integral's own tolerance: 1 % of the difference, 0.005 of a small one.
        close = max(0.01 * abs(float(ends[0] - ends[1])), 0.005)
        assert float(found.values.sum()) == pytest.approx(float(ends[0] - ends[1]), abs=close)


def test_the_figure_is_the_predictions_own(opened: dict[str, Opened]) -> None:
    """Through the replaced embeddings the network computes what it predicts."""
    model = opened["one label"].model
    prediction = model.predict([TEXT])[0]
    (reading,) = readings_of(model, TEXT, prediction)
    share = float(reading.share(reading.figures(reading.whole))[0])
    assert share == pytest.approx(max(prediction.to_json()["probabilities"].values()), abs=1e-5)
    assert [piece.text for piece in reading.pieces] == TEXT.split()
    (scored,) = readings_of(opened["score"].model, TEXT, opened["score"].model.predict([TEXT])[0])
    score = opened["score"].model.predict([TEXT])[0].to_json()["score"]
    assert float(scored.figures(scored.whole)[0]) == pytest.approx(score, abs=1e-5)


def test_a_blank_piece_is_the_mask_and_specials_stay(opened: dict[str, Opened]) -> None:
    model = opened["one label"].model
    (reading,) = readings_of(model, TEXT, model.predict([TEXT])[0])
    kept = torch.ones(1, len(reading.pieces), dtype=torch.bool)
    kept[0, 2] = False
    changed = (reading.with_pieces(kept)[0] != reading.embedded).any(dim=1).nonzero().flatten()
    assert changed.tolist() == list(reading.pieces[2].tokens)
    assert torch.equal(reading.blank[0], reading.embedded[0])  # [CLS]


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    share = logits.softmax(dim=1)[0, 1]
    assert float(log_odds(logits, 1)[0]) == pytest.approx(float((share / (1 - share)).log()))


def test_rollout_is_the_product_of_half_mixed_layers(opened: dict[str, Opened]) -> None:
    first = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    second = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    # ½A + ½I of each layer: [[1, 0], [¼, ¾]], then [[½, ½], [½, ½]] of it from the left.
    expected = torch.tensor([[0.625, 0.375], [0.625, 0.375]])
    assert torch.allclose(rolled([first, second]), expected)
    model = opened["one label"].model
    network: Network = model.workspace.network
    before = network.base.config._attn_implementation
    (reading,) = readings_of(model, TEXT, model.predict([TEXT])[0])
    found = attention_rollout(network, reading)
    assert not isinstance(found, str)
    assert 0 < float(found.values.sum()) <= 1 + 1e-6
    assert (found.values >= 0).all()
    assert network.base.config._attn_implementation == before


def test_the_right_order_is_more_faithful_than_chance_and_the_wrong_one_less() -> None:
    weights = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])

    def figure(embeddings: Tensor) -> Tensor:
        return (embeddings * weights).sum(dim=(1, 2)) / 10

    reading = toy(figure)
    values = occlusion(reading).values
    chance = by_chance(reading, np.random.default_rng(0))
    right, wrong = faithfulness(reading, values, chance), faithfulness(reading, -values, chance)
    assert right.gain > 0 > wrong.gain
    assert right.deletion < chance.deletion < wrong.deletion
    assert right.insertion > chance.insertion > wrong.insertion


def test_an_area_is_a_trapezoid() -> None:
    assert area([0.0, 0.5, 1.0], [1.0, 0.5, 0.0]) == pytest.approx(0.5)
    assert area([0.0, 0.25, 1.0], [1.0, 0.0, 0.0]) == pytest.approx(0.125)


def test_pieces_are_words_marks_and_chinese_characters() -> None:
    def texts(text: str) -> list[str]:
        return [text[a:b] for a, b in spans_in(text)]

    assert texts("It's well-made, isn't it?") == ["It's", "well-made", ",", "isn't", "it", "?"]
    assert texts("A股在3月大跌") == ["A", "股", "在", "3", "月", "大", "跌"]


def test_a_long_text_has_joined_pieces_that_lose_no_token() -> None:
    ids = list(range(300))

    class Slow:
        all_special_ids = (0, 299)

        def decode(self, token: list[int]) -> str:
            return f"t{token[0]}"

    pieces = pieces_of(Slow(), ids, None, [""], [[]])  # type: ignore[arg-type]
    assert len(pieces) == 128
    assert [place for piece in pieces for place in piece.tokens] == ids[1:-1]
    assert pieces[0].text.startswith("t1 t2")


def test_integrated_gradients_are_captums(opened: dict[str, Opened]) -> None:
    """The same sums as captum's, where it is installed (`pip install cloister[dev]`)."""
    attr = pytest.importorskip("captum.attr")
    model = opened["one label"].model
    (reading,) = readings_of(model, TEXT, model.predict([TEXT])[0])
    own = integrated_gradients(reading)
    other = attr.IntegratedGradients(reading.figure).attribute(
        reading.embedded[None], reading.blank[None], n_steps=own.steps, method="gausslegendre"
    )
    tokens = other[0].sum(dim=1)
    expected = torch.stack([tokens[list(piece.tokens)].sum() for piece in reading.pieces])
    # Single against double precision of a sum of 16 terms.
    assert torch.allclose(own.values, expected.float(), atol=1e-4)
    assert "captum" in sys.modules
