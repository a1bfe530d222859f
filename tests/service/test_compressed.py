"""A folder that `model compress` wrote is served as a run is, and answers as `predict` does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.export.compress.writing import compress_model
from cloister.service.versions import Version, open_version
from cloister.serving.model import load
from cloister.serving.predictions import Classified, Replied
from cloister.tasks.config import TaskConfig
from tests.service.test_app import HELLO, Desk
from tests.support.architectures import tiny
from tests.support.models import tiny_bert
from tests.support.released import exported

TEXTS = ["chest pain at rest", "fever", "the patient has a severe rash"]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def served(folder: Path) -> Version:
    return open_version(folder, "cpu", None)


def test_a_classifier_without_a_layer_answers_as_predict_does(desk: Desk, tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    task = TaskConfig(labels=("x", "y", "z"), max_length=12)
    whole, small = exported(tmp_path / "adapter", base, task), tmp_path / "small"
    compress_model(whole, small, drop_layers=1)
    for folder in (small, small / "adapter"):
        answer = desk.client(served(folder)).post("/v1/predict", json={"inputs": TEXTS})
        assert answer.status_code == 200
        predictions = answer.json()["predictions"]
        for told, own in zip(predictions, load(small).predict(TEXTS), strict=True):
            assert isinstance(own, Classified)
            assert told["label"] == own.label
            assert told["probabilities"] == pytest.approx(own.probabilities, abs=1e-6)
    # Of the model as it was, other probabilities: what is served is the smaller one.
    (own, *_) = load(whole).predict(TEXTS)
    assert isinstance(own, Classified)
    assert predictions[0]["probabilities"] != pytest.approx(own.probabilities, abs=1e-6)


def test_a_chat_of_half_its_weights_replies_as_predict_does(desk: Desk, tmp_path: Path) -> None:
    base = tiny(tmp_path / "base", "llama")
    whole = exported(tmp_path / "adapter", base, TaskConfig(kind="causal-lm", max_length=24))
    compress_model(whole, tmp_path / "small", sparsity=0.5)
    body = {"messages": HELLO, "max_tokens": 16}
    answer = desk.client(served(tmp_path / "small")).post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    (own,) = load(tmp_path / "small").predict([str(HELLO[0]["content"])])
    assert isinstance(own, Replied)
    told = answer.json()["choices"][0]["message"]["content"]
    assert told
    assert own.reply.startswith(told)
