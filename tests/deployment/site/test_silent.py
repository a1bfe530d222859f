"""Records that are cut before their label or reply are counted at the site only."""

from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.site_file import read_site
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.protocol.exchange import RoundRequest, Status, Step
from tests.client.test_differential import CHAT, study
from tests.support.models import tiny_llama
from tests.support.wards import Seen, Ward


def row(words: int, person: int) -> dict[str, object]:
    """A question of so many words, and its answer."""
    turns = [
        {"role": "user", "content": " ".join(["rash"] * words)},
        {"role": "assistant", "content": "no fever"},
    ]
    return {"messages": turns, "person": f"p{person}"}


def test_a_site_s_operator_is_told_how_many_records_teach_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`task.max_length` is 16: of 12 conversations all, three or none have no answer within it."""
    base = tiny_llama(tmp_path / "llama")
    recipe = study(base, *CHAT)
    seen: dict[int, Seen] = {}
    proofs: Path | None = None
    for silent in (12, 3, 0):
        rows = [row(40 if person < silent else 2, person) for person in range(12)]
        ward = Ward.open(
            tmp_path / str(silent), rows, base, monkeypatch, task="causal-lm", proofs=proofs
        )
        proofs = proofs or ward.proofs
        seen[silent] = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
        file = read_site(ward.folder / "site.toml")
        assert AgentFolder.of(file).study()["silent"] == silent
        assert run(["site", "status", str(file.path)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert (f"{silent} records have no effect" in told) == bool(silent)
    # The coordinator sees the same of each.
    assert seen[12].said[2] is Status.READY
    assert seen[12] == seen[3] == seen[0]
