"""A sound ledger is recomputed; a ledger with any other statement is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from cloister.errors import BadFileError, LedgerError
from cloister.ledger.anchor import anchor_of, countersign, read_anchor
from cloister.ledger.budget import Budget
from cloister.ledger.chain import Entry, Head, sign
from cloister.ledger.ledger import Ledger, key_file
from cloister.ledger.signing import create_key, load_key
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from tests.support.ledgers import new_ledger, reserved, run_round, small_plan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of two released rounds and one that was cut off."""
    path = tmp_path / "site.ledger"
    ledger = new_ledger(path)
    run_round(ledger, 1)
    run_round(ledger, 2)
    reserved(ledger, 3)
    return path


def entries(path: Path) -> list[Entry]:
    return LedgerFile(path).entries()


def forged(path: Path, changes: dict[int, dict[str, object]]) -> list[Entry]:
    """The ledger as an insider with the site's key would write it anew, some fields changed."""
    key, chain, head = load_key(key_file(path)), [], None
    for number, entry in enumerate(entries(path)):
        fields = {k: v for k, v in entry.fields.items() if k not in ("seq", "prev")}
        chain.append(sign(fields | changes.get(number, {}), head, key))
        head = Head(number, chain[-1].hash)
    return chain


def test_a_sound_ledger_is_recomputed(path: Path) -> None:
    verdict = verify(entries(path), "it")
    assert (verdict.charges, verdict.releases, verdict.steps) == (3, 2, 15)
    assert verdict.epsilon_pld == small_plan().epsilon_after(3)
    assert verdict.epsilon_pld < verdict.epsilon_rdp
    assert verdict.head == Ledger(path).head


def test_rewriting_without_a_change_is_sound(path: Path) -> None:
    assert verify(forged(path, {}), "it").steps == 15


@pytest.mark.parametrize(
    ("number", "change", "word"),
    [
        (5, {"epsilon": {"pld": 0.1, "rdp": 0.2}}, "states an epsilon"),
        (5, {"epsilon": {"pld": None, "rdp": None}}, "states an epsilon"),
        (3, {"round": 1}, "not readable"),
        (3, {"planned_steps": 99}, "not readable"),
        (3, {"delta": 1e-6}, "not readable"),
        (1, {"order": 1.0}, "not readable"),
        (1, {"order": 1e9}, "not readable"),
        (3, {"event": dataclasses.asdict(small_plan().event(5)) | {"steps": 2.5}}, "not readable"),
        (
            3,
            {"event": dataclasses.asdict(small_plan().event(5)) | {"is_private": "no"}},
            "not readable",
        ),
        (0, {"delta": 5e-6}, "not readable"),
        (3, {"plan": "another"}, "not readable"),
        (3, {"event": dataclasses.asdict(small_plan(2.0).event(5))}, "not readable"),
        (1, {"terms": {}}, "not readable"),
        (1, {"terms": None}, "not readable"),
        (1, {"terms": dataclasses.asdict(small_plan(num_rounds=5))}, "not readable"),
        (3, {"kind": "refund"}, "not readable"),
        (2, {"reservation": 5}, "not readable"),
        (4, {"reservation": 1}, "not readable"),
        (0, {"epsilon": 0.5}, "than the budget covers"),
        (0, {"epsilon": -1.0}, "budget.epsilon"),
        (3, {"order": 3.3}, "not readable"),
        (1, {"most_steps": 10**6}, "more steps than the budget covers"),
        (1, {"most_steps": 4000}, "more steps than the budget covers"),
        (1, {"most_steps": -1}, "not readable"),
        (1, {"most_steps": 20.0}, "not readable"),
        (1, {"most_steps": True}, "not readable"),
        (3, {"most_steps": 20}, "not readable"),
        (1, {"event": {"noise_multiplier": 1.0}}, "not readable"),
    ],
)
def test_an_insider_s_forgery_is_found(
    path: Path, number: int, change: dict[str, object], word: str
) -> None:
    with pytest.raises(LedgerError, match=word):
        verify(forged(path, {number: change}), "it")


def test_another_key_is_not_the_site_s(path: Path, tmp_path: Path) -> None:
    verdict = verify(entries(path), "it")
    assert verify(entries(path), "it", public_key=verdict.public_key) == verdict
    with pytest.raises(LedgerError, match="not the given"):
        verify(entries(path), "it", public_key="ab" * 32)
    key = create_key(tmp_path / "stranger")
    chain = entries(path)
    chain[3] = dataclasses.replace(chain[3], signature=key.sign(chain[3].body))
    with pytest.raises(LedgerError, match="entry 3: not signed by the key"):
        verify(chain, "it")


def test_what_was_cut_off_shows_only_by_an_anchor(path: Path) -> None:
    anchor = Ledger(path).head
    shorter = entries(path)[:-2]
    assert verify(shorter, "it").steps == 10
    with pytest.raises(LedgerError, match="truncated, rolled back or replaced"):
        verify(shorter, "it", anchors=[anchor])
    run_round(Ledger(path), 4)
    assert verify(entries(path), "it", anchors=[anchor]).steps == 20


def test_an_anchor_is_read_back_with_its_witnesses(path: Path, tmp_path: Path) -> None:
    chain = entries(path)
    witness = create_key(tmp_path / "officer")
    anchor = countersign(anchor_of(chain[-1], chain[0].fields["key"]), witness)
    file = tmp_path / "head.json"
    file.write_text(json.dumps(anchor.to_json()))
    assert read_anchor(file) == anchor
    assert anchor.head == Ledger(path).head
    changed = anchor.to_json() | {"seq": 3}
    file.write_text(json.dumps(changed))
    with pytest.raises(LedgerError, match="signature on this head is invalid"):
        read_anchor(file)
    for garbage in ("", "[]", "{}", '{"seq": "x"}'):
        file.write_text(garbage)
        with pytest.raises(BadFileError, match="not a ledger head"):
            read_anchor(file)


def test_a_budget_without_limit_verifies_too(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "open", Budget(epsilon=float("inf"), delta=2e-5))
    run_round(ledger, 1)
    assert verify(entries(tmp_path / "open"), "it").budget_epsilon == float("inf")
