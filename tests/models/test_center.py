"""A centre is the mean of built-in sentences only, and an exported head includes it."""

import hashlib
from pathlib import Path

import pytest
import torch

from cloister.data.records import TextRecord
from cloister.errors import RecipeError
from cloister.models.center import STEP, TEXTS, uncentred
from cloister.models.config import LoraConfig, ModelConfig
from cloister.recipe import parse_document, parse_recipe, sent_document
from cloister.tasks.config import TaskConfig
from cloister.training.gradients import per_record_hooks
from cloister.training.preflight import preflight
from cloister.training.proof_key import depends_on
from cloister.training.record_losses import record_losses
from cloister.training.workspace import Workspace, open_workspace
from tests.support.isolation import CONFIG, PLAN
from tests.support.models import tiny_bert, tiny_llama

LABELS = ("a", "b")


def opened(base: Path, center: str | None, prompt: str | None = None) -> Workspace:
    return open_workspace(
        ModelConfig(base=str(base), normalize=True, center=center),  # type: ignore[arg-type]
        LoraConfig(train="none"),
        TaskConfig(max_length=32, prompt=prompt),
        LABELS,
        0,
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def vectors(workspace: Workspace, texts: tuple[str, ...]) -> torch.Tensor:
    """The vectors of texts before any centre, one after another."""
    rows = []
    for text in texts:
        example = workspace.task.encode(TextRecord(text=text, label="a"))
        with torch.no_grad():
            rows.append(workspace.network.pooled(workspace.task.collate([example]))[0])
    return torch.stack(rows)


@pytest.mark.parametrize("language", ["english", "chinese"])
@pytest.mark.parametrize("prompt", [None, "text: {text} label"])
def test_it_is_the_mean_of_the_sentences_with_the_study_s_prompt(
    llama: Path, language: str, prompt: str | None
) -> None:
    workspace = opened(llama, language, prompt)
    found = workspace.network.center
    mean = vectors(workspace, TEXTS[language]).mean(dim=0)  # type: ignore[index]
    assert torch.allclose(found, mean, atol=STEP)
    assert torch.equal(found, torch.round(found / STEP) * STEP)
    assert torch.equal(found, opened(llama, language, prompt).network.center)


def test_the_sentences_differ_and_are_as_many_in_each_language() -> None:
    assert len(TEXTS["english"]) == len(TEXTS["chinese"]) == 48
    for texts in TEXTS.values():
        assert len(set(texts)) == 48
    # As Chinese is written: another mark is another token, the last of some texts.
    assert not set(",?!;:") & set("".join(TEXTS["chinese"]))


@pytest.mark.parametrize("make", [tiny_bert, tiny_llama])
def test_a_record_s_gradient_is_of_its_centred_vector(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The error of the two classes times what is left of the vector: no other than by hand."""
    workspace = opened(make(tmp_path), "english")
    network, task = workspace.network, workspace.task
    texts = ("the patient has fever", "rash since monday")
    batch = task.collate(
        [task.encode(TextRecord(text=t, label=x)) for t, x in zip(texts, LABELS, strict=True)]
    )
    with per_record_hooks(network):
        record_losses(network, task, batch).sum().backward()
        found = network.head.weight.grad_sample.clone()  # type: ignore[union-attr]
    own = vectors(workspace, texts) - network.center
    logits = own @ network.head.weight.T + network.head.bias  # type: ignore[union-attr]
    error = logits.softmax(dim=1) - torch.eye(2)
    assert torch.allclose(found, error.unsqueeze(2) * own.unsqueeze(1), atol=1e-5)
    assert not torch.allclose(found, error.unsqueeze(2) * vectors(workspace, texts).unsqueeze(1))


def test_a_centred_head_equals_the_plain_one_that_is_exported() -> None:
    weight, bias, center, features = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for shape in ((3, 8), (3,), (8,), (5, 8))
    )
    plain_weight, plain_bias = uncentred(weight, bias, center)
    expected = (features - center) @ weight.T + bias
    assert torch.allclose(features @ plain_weight.T + plain_bias, expected, atol=1e-5)
    assert uncentred(weight, bias, None) == (weight, bias)


def test_absent_nothing_is_taken_off(llama: Path) -> None:
    assert opened(llama, None).network.center is None


def test_a_proof_without_a_centre_does_not_hold_with_one(llama: Path) -> None:
    told = [
        depends_on(opened(llama, center), PLAN, CONFIG, 1.0)["pooling"]
        for center in (None, "english")
    ]
    assert told[1] == f"{told[0]}, centred"


def test_preflight_passes_with_a_centre(llama: Path) -> None:
    workspace = opened(llama, "english")
    records = [TextRecord(text=text, label="a") for text in TEXTS["english"][:3]]
    preflight(workspace.network, workspace.task, workspace.encode(records))


def test_it_is_refused_where_a_text_has_no_one_vector() -> None:
    for kind in ("token-classification", "causal-lm"):
        with pytest.raises(RecipeError, match=r"model\.center"):
            parse_recipe("", ["model.center=english", f"task.kind={kind}"])


def test_sentences_are_the_same_as_ever() -> None:
    """To edit one changes what old recipes mean: a new language needs a name of its own."""
    told = "\n".join((*TEXTS["english"], *TEXTS["chinese"]))
    assert hashlib.sha256(told.encode()).hexdigest() == (
        "56a99ca32440dffca7c110a1e7526f0cd8933c0afa120121fa64819bf781d187"
    )


def test_a_recipe_without_it_keeps_its_digest_and_one_with_it_has_another() -> None:
    plain, centred = parse_recipe(""), parse_recipe("", ["model.center=english"])
    assert '"center"' not in sent_document(plain)
    assert centred.digest() != plain.digest()
    assert parse_document(sent_document(centred)).model.center == "english"


def test_what_is_subtracted_is_said() -> None:
    assert ModelConfig(center="none").center_in_words is None
    assert ModelConfig(center="chinese").center_in_words == (
        'the mean vector of built-in Chinese sentences is subtracted (model.center = "chinese")'
    )
