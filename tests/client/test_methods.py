"""A deployed site trains each kind of adapter, and sends only the trained tensors."""

from pathlib import Path

import pytest

from cloister.client.site_file import read_site
from cloister.ledger.ledger import Ledger
from cloister.models.config import Method
from cloister.protocol.exchange import RoundRequest, Status, Step
from tests.support.models import tiny_bert
from tests.support.neighbours import notes, study
from tests.support.wards import Ward


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("ward"))


# What leaves in a round beside the head, as names end.
SENT: dict[Method, str] = {
    "bitfit": ".lora_B.bias",
    "ia3": ".ia3_l",
    "prompt": "prompt_encoder.embedding.weight",
    "prefix": "prompt_encoder.embedding.weight",
}


@pytest.mark.parametrize("method", SENT)
def test_a_site_charges_a_round_and_sends_the_adapter_s_own_tensors(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    one = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch)
    tokens = ("lora.tokens=3",) if method in ("prompt", "prefix") else ()
    recipe = study(bert, f"lora.method={method}", "lora.train=b", *tokens)
    prepared = one.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert prepared.said[2] is Status.READY
    answered = one.ask(recipe, RoundRequest(recipe.digest(), 1, one.adapter))
    assert answered.said[2] is Status.TRAINED
    sent = [name for name, _ in answered.shapes if not name.startswith("head.")]
    assert sent
    assert all(name.endswith(SENT[method]) for name in sent)
    assert Ledger(read_site(one.folder / "site.toml").ledger).head.seq > 0
