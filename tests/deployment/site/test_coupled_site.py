"""A site whose file couples units charges every round with coupled units."""

from pathlib import Path
from typing import cast

import pytest

from cloister.client.moments import Moments
from cloister.client.site_file import read_site
from cloister.deployment.flower.flower_tasks import Runtime
from cloister.deployment.site.agent import Agent
from cloister.ledger.ledger import Ledger
from cloister.protocol.exchange import RoundRequest, Status, Step
from tests.support.models import tiny_bert
from tests.support.neighbours import notes, study
from tests.support.wards import Ward


def test_a_declared_coupling_is_read_anew_and_stands_in_every_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = tiny_bert(tmp_path / "base")
    ward, recipe = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch), study(bert)
    asked = RoundRequest(recipe.digest(), 0, b"", Step.PREPARE)
    path = ward.folder / "site.toml"
    path.write_text(path.read_text().replace("[records]", "couples_units = true\n[records]", 1))
    # The records were read before: what was said of them then was another thing.
    assert ward.ask(recipe, asked).said[2] is Status.REFUSED
    assert "cloister site reload" in ward.agent._folder.refusals()[-1]["why"]
    ward.agent = Agent(path, cast(Runtime, None), Moments(ward.clock, ward._wait))
    assert ward.ask(recipe, asked).said[2] is Status.READY
    first = RoundRequest(recipe.digest(), 1, ward.adapter)
    assert ward.ask(recipe, first).said[2] is Status.TRAINED
    ledger = Ledger(read_site(path).ledger)
    certificate = ledger.certificate(recipe.digest(), site="ward", base="ab" * 32)
    assert certificate.fields["couples_units"] is True
