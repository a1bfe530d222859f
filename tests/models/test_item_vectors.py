"""Public items have fixed vectors, and an untrained network scores with them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cloister.data.records import ItemsRecord
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.item_vectors import FINE, SHARPNESS, item_vectors
from cloister.models.state import write_adapter
from cloister.tasks.config import TaskConfig
from cloister.tasks.recommendation import Recommendation
from cloister.training.proof import Proof
from cloister.training.workspace import Workspace, open_workspace
from tests.support.isolation import CONFIG, PLAN
from tests.support.models import WORDS


@pytest.fixture(scope="module")
def opened(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    shelf = tmp_path_factory.mktemp("shelf") / "items.csv"
    shelf.write_text("item,text\n" + "".join(f"{n},{word}\n" for n, word in enumerate(WORDS)))
    task = TaskConfig(kind="recommendation", items=str(shelf), max_length=16)
    return open_workspace(
        ModelConfig(base=str(bert)), LoraConfig(train="both", top_layers=0), task, (), 0
    )


def plain(workspace: Workspace) -> torch.Tensor:
    """Each item's text read alone, in float64."""
    task, network = workspace.task, workspace.network
    assert isinstance(task, Recommendation)
    with torch.no_grad():
        return torch.cat(
            [
                network.pooled(task.collate([task.item_example(place)])).double()
                for place in range(len(WORDS))
            ]
        )


def test_an_items_vector_has_the_direction_of_its_text_without_what_all_share(
    opened: Workspace,
) -> None:
    vectors, center = opened.network.items, opened.network.center
    assert vectors is not None
    assert center is not None
    read = plain(opened)
    assert torch.allclose(center.double(), read.mean(dim=0), atol=2.0**-7 + 1e-5)
    centred = read - center.double()
    alike = torch.nn.functional.cosine_similarity(vectors.double(), centred)
    assert alike.min() > 0.9999
    lengths = vectors.norm(dim=1) * centred.norm(dim=1).mean()  # about τ, up to a power of two
    assert lengths.min() > SHARPNESS / 1.5
    assert lengths.max() < SHARPNESS * 1.5
    # Multiples of a power of two, so that sums in another order nearly always give the same.
    steps = vectors.double() / (FINE * vectors.norm(dim=1).max().log2().round().exp2())
    assert torch.equal(steps, steps.round())


def test_before_training_a_score_is_the_product_of_person_and_item(opened: Workspace) -> None:
    task, network = opened.task, opened.network
    write_adapter(network, opened.start)
    example = task.encode(ItemsRecord(("3", "5", "1")))
    batch = task.collate([example])
    with torch.no_grad():
        person = network.pooled(batch)[0] - network.center
        assert network.items is not None
        assert torch.allclose(network.logits(batch)[0], network.items @ person, atol=1e-4)


def test_the_vectors_are_those_of_the_base_whatever_the_adapter_has_learnt(
    opened: Workspace,
) -> None:
    task = opened.task
    assert isinstance(task, Recommendation)
    write_adapter(opened.network, opened.start)
    again = item_vectors(opened.network, task)
    assert opened.network.items is not None
    assert torch.equal(again.vectors, opened.network.items)
    assert "items" not in opened.network.state_dict()
    assert not any("items" in name for name in opened.start)


def test_a_proof_is_of_these_items(opened: Workspace) -> None:
    """Their vectors are a layer of the network, which as many other items would change."""
    task = opened.task
    assert isinstance(task, Recommendation)
    texts = (*task.catalogue.texts[1:], task.catalogue.texts[0])
    others = replace(task, catalogue=replace(task.catalogue, texts=texts, sha256="0" * 64))
    other = replace(opened, task=others)
    assert Proof.key_of(opened, PLAN, CONFIG) == Proof.key_of(opened, PLAN, CONFIG)
    assert Proof.key_of(opened, PLAN, CONFIG) != Proof.key_of(other, PLAN, CONFIG)
