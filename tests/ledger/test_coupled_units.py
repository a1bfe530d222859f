"""A charge with coupled units must show in the certificate; old certificates stay valid."""

from pathlib import Path
from typing import Any

import pytest

from cloister.cli.main import run
from cloister.errors import LedgerError
from cloister.evidence.certificate_alone import check_alone, to_bytes
from cloister.evidence.site_facts import site_facts
from cloister.ledger.certificate import Evidence, check, read_evidence
from cloister.ledger.chain import Entry
from cloister.ledger.charge import Charge
from cloister.ledger.stated import COUPLED
from cloister.ledger.verify import verify
from tests.support.evidence import (
    certified,
    certified_as,
    chain,
    key_of,
    keys_of,
    rechained,
    resigned,
)
from tests.support.ledgers import new_ledger, small_plan

PLAN, KEY = small_plan(), keys_of()["site-0"]
ROUNDS = [("study", 1, PLAN, True), ("study", 2, PLAN, True)]


def marked(mark: object, *numbers: int) -> list[Entry]:
    """A ledger of which the charges of some rounds have the mark."""

    def change(_: int, fields: dict[str, Any]) -> None:
        if fields["kind"] == "reserve" and fields["round"] in numbers:
            fields["couples_units"] = mark

    return rechained(chain(key_of(0), ROUNDS), key_of(0), change)


@pytest.fixture(scope="module")
def coupled() -> Evidence:
    return certified(marked(True, 2), 0)


@pytest.fixture(scope="module")
def plain() -> Evidence:
    return certified(chain(key_of(0), ROUNDS), 0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_charge_marks_the_ledger_whatever_comes_after(number: int) -> None:
    assert certified(marked(True, number), 0).fields["couples_units"] is True


def test_one_charge_marks_the_certificate_and_the_card_s_facts(
    coupled: Evidence, plain: Evidence
) -> None:
    assert (coupled.fields["version"], coupled.fields["couples_units"]) == (4, True)
    assert "couples_units" not in plain.fields
    assert plain.fields["version"] == 3  # so that older programs read it
    for evidence, mark in ((coupled, True), (plain, False)):
        assert check(read_evidence(evidence.to_json(), "it"), KEY).history.couples_units is mark
        assert site_facts(evidence.fields).couples_units is mark
        found = check_alone(
            to_bytes(evidence.certificate), site="site-0", study="study", key=KEY, most_steps=20
        )
        assert found == evidence.fields


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_certificate_that_hides_it_is_refused(coupled: Evidence, version: int) -> None:
    hiding = certified_as(version, coupled.ledger, 0)
    with pytest.raises(LedgerError, match="does not say that ε is about the units of the file"):
        check(hiding, KEY)


def test_a_certificate_that_invents_it_is_refused(plain: Evidence) -> None:
    inventing = resigned(plain, key_of(0), version=4, couples_units=True)
    with pytest.raises(LedgerError, match="couples_units differs from its ledger"):
        check(inventing, KEY)


@pytest.mark.parametrize("mark", [False, 1, "yes", None])
def test_a_mark_of_another_kind_is_no_ledger(mark: object) -> None:
    with pytest.raises(LedgerError, match="entry 1: not readable"):
        verify(marked(mark, 1), "it")


def test_a_charge_writes_it_and_the_ledger_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.ledger"
    ledger = new_ledger(path)
    for number, couples in ((1, False), (2, True)):
        ledger.reserve(
            Charge(study="s", round=number, plan=PLAN, request="r", couples_units=couples)
        )
        assert run(["ledger", "verify", str(path)]) == 0
        assert (COUPLED[1:] in capsys.readouterr().out) is couples
