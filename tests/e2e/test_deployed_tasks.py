"""Words and preferred replies at a deployed site; the other tasks are in files of their own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.deployment.site.agent_folder import AgentFolder
from cloister.protocol.exchange import RoundRequest, Status, Step
from tests.support.models import tiny_bert, tiny_llama
from tests.support.neighbours import study
from tests.support.wards import Seen, Ward

TYPES = ["BODY", "SIGN"]
SENTENCES: list[tuple[list[str], list[str]]] = [
    (["knee", "swollen"], ["B-BODY", "B-SIGN"]),
    (["chest", "pain", "at", "rest"], ["B-BODY", "I-BODY", "O", "O"]),
    (["no", "fever"], ["O", "S-SIGN"]),
]
REPLIES = [("itchy rash", "rest", "acute pain"), ("knee swollen", "no fever", "headache")]


def words(number: int) -> dict[str, object]:
    tokens, tags = SENTENCES[number % len(SENTENCES)]
    return {"tokens": tokens, "tags": tags}


def preference(number: int) -> dict[str, object]:
    return dict(zip(("prompt", "chosen", "rejected"), REPLIES[number % len(REPLIES)], strict=True))


@dataclass(frozen=True)
class Case:
    """A task at a site: how it is asked for, its rows, and rows that are no record of it."""

    kind: str
    base: Callable[[Path], Path]
    settings: tuple[str, ...]
    row: Callable[[int], dict[str, object]]
    misfits: tuple[dict[str, object], ...]


CASES = {
    "words": Case(
        "token-classification",
        tiny_bert,
        (f"task.labels={json.dumps(TYPES)}",),
        words,
        (
            {"tokens": ["knee"], "tags": ["B-NOBODY"]},
            {"tokens": ["knee", "pain"], "tags": ["O"]},
            {"tokens": ["knee"], "tags": None},
        ),
    ),
    "preferences": Case(
        "causal-lm",
        tiny_llama,
        ("task.labels=[]", 'task.loss="dpo"', "lora.r=2"),
        preference,
        (
            {"prompt": "rash", "chosen": "rest"},
            {"prompt": "rash", "chosen": "rest", "rejected": ""},
            {"prompt": "rash " * 2000, "chosen": "rest", "rejected": "pain"},
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_deployed_site_trains_and_says_the_same_with_a_row_that_does_not_fit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    base = case.base(tmp_path / "base")
    recipe = study(base, f"task.kind={case.kind}", *case.settings)
    monkeypatch.setattr("tests.support.wards.NOTES", {label: [] for label in TYPES})
    rows = [{**case.row(n), "person": f"p{n}"} for n in range(12)]
    lives: list[list[Seen]] = []
    for number, more in enumerate((None, *case.misfits)):
        own = rows if more is None else [*rows, {**more, "person": "q"}]
        first = AgentFolder(tmp_path / "0" / "ward.agent").proofs
        ward = Ward.open(
            tmp_path / str(number), own, base, monkeypatch, task=case.kind, proofs=first
        )
        digest = recipe.digest()
        life = [ward.ask(recipe, RoundRequest(digest, 0, b"", Step.PREPARE))]
        life.append(ward.ask(recipe, RoundRequest(digest, 1, ward.adapter)))
        lives.append(life)
    assert [seen.said[2] for seen in lives[0]] == [Status.READY, Status.TRAINED]
    assert all(life == lives[0] for life in lives)
