"""A ward's requests to others, and the times of its answers, follow the coordinator's question."""

from dataclasses import replace
from pathlib import Path

import pytest

from cloister.protocol.exchange import RoundRequest, Status, Step
from tests.support.neighbours import notes, study
from tests.support.wards import Ward


@pytest.mark.parametrize("asked", ["evil-org/two-terabytes", "/etc"])
@pytest.mark.parametrize("states", ["another hash", "an accepted hash", "no hash"])
def test_nothing_is_asked_of_the_hub_because_a_coordinator_names_it(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, states: str
) -> None:
    import huggingface_hub

    requests: list[tuple[str, bool]] = []
    found = huggingface_hub.snapshot_download

    def snapshot_download(name: str, *, local_files_only: bool = False, **options: object) -> str:
        requests.append((name, local_files_only))
        return found(name, local_files_only=True, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    recipe = study(bert)
    sha256 = {"another hash": "0" * 64, "an accepted hash": recipe.model.sha256, "no hash": None}
    recipe = replace(recipe, model=replace(recipe.model, base=asked, sha256=sha256[states]))
    ward = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch)
    path = ward.folder / "site.toml"
    path.write_text(path.read_text().replace(f'model = "{bert}"', ""))
    seen = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert seen.said[2] is Status.REFUSED
    assert all(only_here for _, only_here in requests)
    if states != "an accepted hash":
        assert requests == []


def test_a_refusal_leaves_at_once_and_an_update_at_its_moment(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward, recipe = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch), study(bert)
    begun = ward.clock.now
    ward.ask(recipe, RoundRequest("another", 1, b""))
    ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    ready = ward.clock.now
    assert ready > begun
    ward.ask(recipe, RoundRequest(recipe.digest(), 99, ward.adapter))
    assert ward.clock.now == ready
    admitted = ward.agent._sites.admitted
    assert admitted is not None
    ward.ask(recipe, RoundRequest(recipe.digest(), 1, ward.adapter))
    assert ward.clock.now == pytest.approx(ready + admitted[1].period)
    assert ward.agent._folder.activity()["leaves_every"] == admitted[1].period
    assert ward.agent._folder.activity()["device"] == str(admitted[1].workspace.network.device)
