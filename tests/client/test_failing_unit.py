"""A record on which the network raises an error in a charged round changes no other output.

It relies on training that runs a failed batch again unit by unit, and counts the one that fails
alone as zero.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cloister.models.network import Network
from cloister.protocol.exchange import Status
from cloister.tasks.task import Batch
from tests.client.test_differential import notes, study
from tests.support.models import tiny_bert
from tests.support.wards import Seen, Ward

# A text that no other note and no synthetic record has, and its tokens after [CLS].
TEXT, TOKENS = "headache since monday", (15, 16, 17)


def rejects() -> torch.Tensor:
    raise RuntimeError("a kernel that cannot")


def nothing() -> torch.Tensor:
    return torch.tensor(float("nan"))


@pytest.mark.parametrize("fails", [rejects, nothing])
def test_a_record_that_breaks_the_network_changes_no_word_and_no_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[[], torch.Tensor]
) -> None:
    base = tiny_bert(tmp_path / "base")
    recipe = study(base, "training.expected_batch_size=40")  # every record is in every batch
    logits = Network.logits

    def fragile(network: Network, batch: Batch) -> torch.Tensor:
        found = logits(network, batch)
        ids = batch.input_ids[:, 1:4]
        is_hit = ids.shape[1] == 3 and bool((ids == torch.tensor(TOKENS)).all(dim=1).any())
        return found * fails() if is_hit else found

    monkeypatch.setattr(Network, "logits", fragile)
    lives: list[list[Seen]] = []
    for number, text in enumerate(("knee pain", TEXT)):
        row = {"text": text, "label": "cardiology", "person": "q"}
        proofs = tmp_path / "0" / "ward.agent" / "own" / "proofs.json"
        ward = Ward.open(tmp_path / str(number), [*notes(), row], base, monkeypatch, proofs=proofs)
        lives.append(ward.life(recipe))
    assert lives[0] == lives[1]
    assert [seen.said[2] for seen in lives[0]][:4] == [Status.READY, *[Status.TRAINED] * 3]
