"""A model that computes in another type than it was trained in: the same weights, rounded."""

from pathlib import Path

import pytest
import torch

from cloister.cli.main import run
from cloister.service.versions import CPU_TOKENS, open_version
from cloister.serving.model import load
from cloister.serving.predictions import Classified
from cloister.tasks.config import TaskConfig
from tests.support.released import exported

TEXTS = ["chest pain at rest", "an itchy rash", "knee swollen since monday"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    task = TaskConfig(labels=("x", "y", "z"), max_length=12)
    return exported(tmp_path_factory.mktemp("labels") / "personal" / "ward", bert, task)


def test_in_bfloat16_probabilities_differ_by_its_rounding(released: Path) -> None:
    exact, rounded = load(released, "cpu"), load(released, "cpu", dtype="bfloat16")
    types = {p.dtype for p in rounded.workspace.network.base.parameters()}
    assert torch.bfloat16 in types
    assert torch.bfloat16 not in {p.dtype for p in exact.workspace.network.base.parameters()}
    found = list(zip(exact.predict(TEXTS), rounded.predict(TEXTS), strict=True))
    assert found[0][0] != found[0][1]
    for one, other in found:
        assert isinstance(one, Classified)
        assert isinstance(other, Classified)
        # 8 bits of each of some ten values in a row: 2⁻⁸ · √10, and four times that.
        assert other.probabilities == pytest.approx(dict(one.probabilities), abs=0.05)


def test_a_served_version_knows_its_type_its_passes_and_whose_it_is(released: Path) -> None:
    version = open_version(released, "cpu", None, "bfloat16")
    types = {p.dtype for p in version.model.workspace.network.base.parameters()}
    assert torch.bfloat16 in types
    assert version.model.max_tokens == CPU_TOKENS
    assert version.is_personal


def test_a_type_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["serve", str(tmp_path), "--dtype", "float16", "--port", "0"]) == 2
    assert "float32 or bfloat16" in capsys.readouterr().err
