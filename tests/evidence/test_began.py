"""What a run states of the finished run with which it began, as a file and on the card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.errors import BadFileError
from cloister.evidence.began import BEGAN, Began, FormerSite, read_began, with_earlier
from cloister.evidence.site_facts import SiteFacts
from cloister.export.card_began import Forgetting, began_section
from cloister.ledger.chain import Head
from cloister.ledger.stated import Accountant, Basis, Stated
from cloister.privacy import adversaries
from cloister.privacy.units import Neighbouring, Unit


def stated(epsilon: float, basis: Basis) -> Stated:
    return Stated(
        epsilon=epsilon,
        delta=1e-5,
        unit=Unit.RECORD,
        neighbouring=Neighbouring.ADD_REMOVE,
        accountant=Accountant.PLD,
        adversaries=tuple(adversaries.names([])),
        basis=basis,
    )


def facts(epsilon: float, basis: Basis) -> SiteFacts:
    return SiteFacts(
        promise=stated(epsilon, basis),
        promise_alone=None,
        spent=stated(1.0, Basis.SPENT_SO_FAR),
        plans=(),
        rounds=2,
        ended="entry 4",
        lifetime=stated(4.5, Basis.SPENT_SO_FAR),
    )


BEGUN = Began(
    run="first",
    study="5" * 64,
    adapter="a" * 64,
    rounds=3,
    sites={
        "east": FormerSite(promise=stated(3.0, Basis.WHOLE_PLAN), head=Head(4, "e" * 64)),
        "north": None,
    },
)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    assert read_began(tmp_path) is None
    (tmp_path / BEGAN).parent.mkdir()
    (tmp_path / BEGAN).write_text(json.dumps(BEGUN.to_json()))
    assert read_began(tmp_path) == BEGUN
    assert BEGUN.promised == [3.0, float("inf")]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "NaN", '{"run": 1}', json.dumps({**BEGUN.to_json(), "sites": [1]})]
    + [json.dumps({**BEGUN.to_json(), "rounds": value}) for value in ("x", "[]", "null")],
)
def test_a_damaged_file_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / BEGAN).parent.mkdir()
    (tmp_path / BEGAN).write_text(text)
    with pytest.raises(BadFileError, match="damaged"):
        read_began(tmp_path)


def test_the_card_never_states_the_second_epsilon_alone() -> None:
    (text,) = began_section(BEGUN, None, {"east": facts(20.0, Basis.LIFETIME_BUDGET)})
    assert "| east | ε = 3.0000 at δ = 1e-05 | entry 4, `" in text
    assert "ε = 20.0000 at δ = 1e-05: its lifetime budget" in text
    assert "| ε = 4.5000 at δ = 1e-05 |" in text
    assert "| north | not known | – | took no part in this study: as before | – |" in text
    # Another ledger: the ledger promises this study's plan alone, so the card adds.
    (text,) = began_section(BEGUN, None, {"east": facts(2.5, Basis.WHOLE_PLAN)})
    assert "ε = 5.5000 at δ = 2e-05: the sum, because it has another ledger now" in text
    (text,) = began_section(BEGUN, None, {"north": facts(2.5, Basis.WHOLE_PLAN)})
    assert "not known: its ledger has this study alone" in text
    (text,) = began_section(BEGUN, None, {"west": facts(2.5, Basis.WHOLE_PLAN), "east": "lost"})
    assert "| west | took no part | – | ε = 2.5000 at δ = 1e-05, of this study alone |" in text
    assert "| not known | – |" in text


def test_a_lifetime_s_budget_covers_the_former_run_in_one_ledger_alone() -> None:
    """Another key is another ledger: its budget says nothing of what the first one charged."""
    east = BEGUN.sites["east"]
    assert east is not None
    begun = replace(BEGUN, sites={"east": replace(east, key="1" * 64)})
    assert Began.from_json(begun.to_json()) == begun
    now = facts(20.0, Basis.LIFETIME_BUDGET)
    (same,) = began_section(begun, None, {"east": replace(now, key="1" * 64)})
    assert "ε = 20.0000 at δ = 1e-05: its lifetime budget" in same
    (other,) = began_section(begun, None, {"east": replace(now, key="2" * 64)})
    assert "ε = 23.0000 at δ = 2e-05: the sum, because it has another ledger now" in other


def test_a_former_run_that_began_with_another_brings_its_promises_along() -> None:
    """The third adapter of a chain tells of the first study's records too."""

    def site(epsilon: float, basis: Basis, key: str | None, entry: int = 9) -> FormerSite:
        return FormerSite(promise=stated(epsilon, basis), head=Head(entry, "f" * 64), key=key)

    first = site(3.0, Basis.WHOLE_PLAN, "1", 4)
    another = site(2.0, Basis.WHOLE_PLAN, "2")
    both = with_earlier(first, another, took_part=True)
    assert both is not None
    assert (both.promise.epsilon, both.promise.delta, both.head) == (5.0, 2e-5, another.head)
    goes_on = site(8.0, Basis.LIFETIME_BUDGET, "1")
    assert with_earlier(first, goes_on, took_part=True) == goes_on
    new = with_earlier(first, site(8.0, Basis.LIFETIME_BUDGET, "2"), took_part=True)
    assert new is not None
    assert new.promise.epsilon == 11.0
    assert with_earlier(first, first, took_part=True) == first  # charged nothing since
    assert with_earlier(first, None, took_part=False) == first
    assert with_earlier(first, None, took_part=True) is None
    assert with_earlier(None, another, took_part=True) is None
    assert with_earlier(None, goes_on, took_part=True) == goes_on


def test_both_promises_are_kept_where_noise_was_shared_in_one_of_two_runs() -> None:
    """Their sum holds against those against whom both hold, and never against more."""
    some = ("coordinator-with-1-other-sites", "public")
    first = FormerSite(
        promise=replace(stated(3.0, Basis.WHOLE_PLAN), adversaries=some),
        head=Head(4, "e" * 64),
        key="1",
        alone=replace(stated(7.0, Basis.WHOLE_PLAN), adversaries=adversaries.ALL_OTHERS),
    )
    now = FormerSite(promise=stated(2.0, Basis.WHOLE_PLAN), head=Head(9, "f" * 64), key="2")
    for one, other in ((first, now), (now, first)):
        both = with_earlier(one, replace(other, key="3"), took_part=True)
        assert both is not None
        assert (both.promise.epsilon, both.promise.adversaries) == (5.0, some)
        assert both.alone is not None
        assert (both.alone.epsilon, both.alone.delta) == (9.0, 2e-5)
        assert both.alone.adversaries == adversaries.ALL_OTHERS
    own = with_earlier(replace(now, head=first.head), replace(now, key="3"), took_part=True)
    assert own is not None
    assert own.alone is None  # the promise holds against them too
    begun = replace(BEGUN, sites={"east": first})
    assert Began.from_json(begun.to_json()) == begun


def test_against_all_others_nothing_is_promised_where_an_older_file_does_not_say_so() -> None:
    shared = FormerSite(
        promise=replace(
            stated(3.0, Basis.WHOLE_PLAN), adversaries=("coordinator-with-1-other-sites", "public")
        ),
        head=Head(4, "e" * 64),
    )
    assert shared.against_all.epsilon == float("inf")
    assert shared.against_all.adversaries == adversaries.ALL_OTHERS


def test_noise_for_whole_sites_is_said_to_add_up() -> None:
    (text,) = began_section(BEGUN, None, {}, is_central=True)
    assert "ε of both studies add up" in text
    assert "add up" in began_section(BEGUN, None, {})[0]


def test_an_older_test_set_is_shown_without_a_start_too() -> None:
    assert began_section(None, None, {"east": facts(1.0, Basis.WHOLE_PLAN)}) == []
    found = Forgetting(before={"accuracy": 0.9, "loss": None}, after={"accuracy": 0.8, "loss": 1.0})
    (text,) = began_section(None, found, {})
    assert text.startswith("## Older test set")
    assert "| accuracy | 0.9000 | 0.8000 |" in text
    assert "| loss |  | 1.0000 |" in text
    assert replace(BEGUN, sites={}).promised == []
