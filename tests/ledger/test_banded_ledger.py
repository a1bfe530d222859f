"""A cycle of correlated noise is charged at its first round, and both verifiers know it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from cloister.canonical import canonical
from cloister.errors import BudgetError, LedgerError, RefusedError
from cloister.evidence.bundle import Bundle, write_bundle
from cloister.evidence.certificate_alone import check_alone, to_bytes
from cloister.ledger.budget import Budget
from cloister.ledger.certificate import Evidence, check
from cloister.ledger.chain import Entry
from cloister.ledger.ledger import Ledger
from cloister.ledger.replay import forecast
from cloister.ledger.reservation import Reservation
from cloister.ledger.signing import public_hex
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.units import Unit
from tests.support.evidence import (
    ADAPTER,
    UNITS,
    bundle_of,
    certified,
    chain,
    key_of,
    keys_of,
    rechained,
    resigned,
)
from tests.support.ledgers import WIDE, banded_plan, charge, new_ledger, small_plan
from tests.tools.test_independent_verifier import verdicts

PLAN = banded_plan()
ROUNDS = [("study", number, PLAN, True) for number in range(1, 5)]


def reserve(ledger: Ledger, number: int, units: str = UNITS) -> Reservation:
    granted = ledger.reserve(charge(number, PLAN, units=units))
    assert isinstance(granted, Reservation)
    return granted


def entries(ledger: Path) -> list[dict[str, Any]]:
    return [entry.fields for entry in LedgerFile(ledger, None).entries()]


def test_the_first_round_of_a_cycle_pays_for_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "site.ledger"
    ledger = Ledger.create(path, Budget(epsilon=PLAN.epsilon_after(9), delta=2e-5), Unit.RECORD)
    for number in (1, 2, 5, 3, 8, 9, 4, 6, 7):  # in any order: the site counts its own steps
        reserve(ledger, number).release(b"sums")
    charged = [fields for fields in entries(path) if fields["kind"] == "reserve"]
    assert [fields["event"]["steps"] for fields in charged] == [1, 0, 0] * 3
    assert [fields["step"] for fields in charged] == list(range(9))
    assert {fields["event"]["sample_rate"] for fields in charged} == {0.3}
    verdict = verify(LedgerFile(path, None).entries(), "it")
    assert (verdict.steps, verdict.charges) == (3, 9)
    assert verdict.promise.epsilon == PLAN.epsilon_after(9)
    assert verdict.spent.epsilon == PLAN.epsilon_after(9)
    ahead = forecast(verdict.history)
    assert ahead is not None
    assert ahead.rounds == 0


def test_a_budget_ends_between_cycles_and_never_within_one(tmp_path: Path) -> None:
    one = Budget(epsilon=PLAN.epsilon_after(3) + 0.05, delta=2e-5)
    ledger = Ledger.create(tmp_path / "site.ledger", one, Unit.RECORD)
    for number in (1, 2, 3):
        reserve(ledger, number)
    with pytest.raises(BudgetError, match="lifetime budget"):
        reserve(ledger, 4)


def test_a_release_after_a_later_charge_is_refused(tmp_path: Path) -> None:
    """The later round counts the earlier one as never seen, so it must stay so."""
    path = tmp_path / "site.ledger"
    first, other = new_ledger(path), Ledger(path)
    early = reserve(first, 1)
    late = reserve(other, 2)
    with pytest.raises(LedgerError, match="later round of its plan"):
        early.release(b"sums")
    late.release(b"sums")
    assert other.released_rounds("study", PLAN) == (False, True)
    # Another plan's rounds do not stand in the way.
    alone = new_ledger(tmp_path / "other.ledger")
    waiting = reserve(alone, 1)
    granted = alone.reserve(charge(1, small_plan(), study="another"))
    assert isinstance(granted, Reservation)
    waiting.release(b"sums")


def test_units_keep_their_groups_for_the_data_set_s_life(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "site.ledger")
    reserve(ledger, 1)
    before = ledger.head
    with pytest.raises(RefusedError, match="another key before"):
        reserve(ledger, 2, "other")
    with pytest.raises(RefusedError, match="another key before"):
        ledger.check(charge(1, PLAN, study="new", units="other"))
    assert ledger.head == before


# --- verifiers --------------------------------------------------------------------------------


def both(path: Path, entries: list[Entry]) -> tuple[bool, bool]:
    """Whether each verifier takes a bundle of one site with this ledger, its certificate signed
    anew by an insider."""
    key = key_of(0)
    sound = certified(chain(key, ROUNDS), 0)
    ledger = {"seq": len(entries) - 1, "hash": entries[-1].hash}
    evidence = Evidence(resigned(sound, key, ledger=ledger).certificate, tuple(entries))
    write_bundle(path / "bundle.zip", Bundle({"site-0": evidence}, ADAPTER, []))
    return verdicts(path / "bundle.zip", {"site-0": public_hex(key)})


def test_both_take_a_sound_ledger_that_is_written_again(tmp_path: Path) -> None:
    sound = chain(key_of(0), ROUNDS)
    assert both(tmp_path, rechained(sound, key_of(0), lambda _, fields: None)) == (True, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", 0),  # of the second round
        ("step", 2),
        ("step", True),
        ("step", None),
        ("units", "11" * 16),
        ("units", None),
        ("planned_steps", 9),
        ("event", {"noise_multiplier": 1.0, "sample_rate": 0.3, "steps": 1, "is_private": True}),
        ("event", {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 0, "is_private": True}),
    ],
)
def test_both_refute_a_second_round_that_is_not_what_the_first_one_paid(
    tmp_path: Path, name: str, value: object
) -> None:
    def forge(_: int, fields: dict[str, Any]) -> None:
        if fields.get("round") == 2:
            fields[name] = value
            if value is None:
                del fields[name]

    assert both(tmp_path, rechained(chain(key_of(0), ROUNDS), key_of(0), forge)) == (False, False)


def test_both_refute_that_a_cycle_begins_without_a_charge(tmp_path: Path) -> None:
    def forge(_: int, fields: dict[str, Any]) -> None:
        if fields.get("round") == 4:
            fields["event"] = {**fields["event"], "steps": 0}

    assert both(tmp_path, rechained(chain(key_of(0), ROUNDS), key_of(0), forge)) == (False, False)


def test_both_refute_a_release_after_a_later_charge(tmp_path: Path) -> None:
    begin, first, release, second, *_ = chain(key_of(0), ROUNDS)
    late = rechained([begin, first, second, release], key_of(0), lambda _, fields: None)
    assert late[-1].fields["reservation"] == 1
    assert both(tmp_path, late) == (False, False)


@pytest.mark.parametrize("bands", [[256], [1, 2, 3], [256, 300, 3], "256", [256, 0, 0]])
def test_both_refute_coefficients_that_cannot_be(tmp_path: Path, bands: object) -> None:
    def forge(_: int, fields: dict[str, Any]) -> None:
        if "plan" in fields:
            terms = {**PLAN.terms(), "bands": bands}
            fields["plan"] = hashlib.sha256(canonical(terms)).hexdigest()
            if "terms" in fields:
                fields["terms"] = terms

    assert both(tmp_path, rechained(chain(key_of(0), ROUNDS), key_of(0), forge)) == (False, False)


def test_both_verifiers_take_a_sound_study(tmp_path: Path) -> None:
    bundle = bundle_of(2, 4, plan=PLAN)
    write_bundle(tmp_path / "bundle.zip", bundle)
    assert verdicts(tmp_path / "bundle.zip", keys_of(2)) == (True, True)
    evidence = certified(chain(key_of(0), [("study", r, PLAN, True) for r in range(1, 8)]), 0)
    assert check(evidence, public_hex(key_of(0))).steps == 3
    fields = check_alone(
        to_bytes(evidence.certificate),
        site="site-0",
        study="study",
        key=public_hex(key_of(0)),
        most_steps=9,
    )
    assert fields["events"] == [
        {"noise_multiplier": 1.0, "sample_rate": 0.3, "steps": 3, "is_private": True}
    ]
    assert fields["promise"]["epsilon"] == PLAN.epsilon_after(9)
    assert WIDE.epsilon >= fields["promise"]["epsilon"]
