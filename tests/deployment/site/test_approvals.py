"""A study is approved by people or by a standing approval, on the terms that were shown."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.client.approvals_config import ApprovalsConfig, StandingApproval, approvals_of
from cloister.client.declared_records import RecordsConfig
from cloister.client.policy_file import (
    AcceptPolicy,
    BudgetPolicy,
    PrivacyPolicy,
    SitePolicy,
)
from cloister.client.site_file import EXAMPLE, SiteConfig, SiteFile, read_site
from cloister.client.terms import StudyTerms, accepted_terms
from cloister.deployment.site.approvals import ApprovalState, judge, unmet
from cloister.deployment.site.decisions import Decision, Kind
from cloister.deployment.site.study_text import facts_of, in_words
from cloister.errors import RecipeError, UsageError
from cloister.ledger.stated import of_plan
from cloister.privacy.plan import Plan
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Unit
from cloister.recipe import Recipe, parse_recipe
from tests.support.examples import tries

BASE, OTHER = "ab" * 32, "cd" * 32
LABELS = ("cardiology", "dermatology")
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
POLICY = SitePolicy(
    budget=BudgetPolicy(epsilon=20.0, delta=2e-5),
    privacy=PrivacyPolicy(person="person"),
    accept=AcceptPolicy(
        tasks=("sequence-classification", "token-classification"), base_sha256=(BASE, OTHER)
    ),
)
STANDING = StandingApproval(
    base_sha256=(BASE,),
    tasks=("sequence-classification",),
    unit=Unit.RECORD,
    max_epsilon=8.0,
    max_rounds=30,
    until=date(2027, 6, 30),
)


ASKING = ApprovalsConfig()


def site(approvals: ApprovalsConfig = ASKING, policy: SitePolicy = POLICY) -> SiteFile:
    own = SiteConfig(name="ward", data="r.jsonl", public_records=1200, ledger="r.ledger")
    records = RecordsConfig(task="sequence-classification", labels=LABELS)
    return SiteFile(Path("/nowhere/site.toml"), own, policy, records, approvals=approvals)


def study(*assignments: str) -> Recipe:
    return parse_recipe("", [f"model.sha256='{BASE}'", f"task.labels={list(LABELS)}", *assignments])


def terms(file: SiteFile | None = None, *assignments: str) -> StudyTerms:
    return accepted_terms(file or site(), study(*assignments))


def test_where_the_base_ends_and_what_is_read_around_a_text_is_seen_and_approved() -> None:
    plain, asked = terms(), terms(None, "model.layers=3", "task.prompt='Note: {text}?'")
    told = in_words(facts_of(asked))
    assert any(line.endswith("ended after its first 3 layers") for line in told)
    assert "prompt     Note: {text}?" in told
    assert not any("prompt" in line or "ended" in line for line in in_words(facts_of(plain)))
    assert asked.digest() != plain.digest()


def decided(*rows: tuple[Kind, int], of: StudyTerms, at: datetime = NOW) -> list[Decision]:
    """Decisions about a study on its terms, in order, each by an account."""
    return [
        Decision(
            seq=number,
            kind=kind,
            study=of.study,
            terms=of.digest(),
            uid=uid,
            login=f"user {uid}",
            name="",
            time=at.isoformat(),
        )
        for number, (kind, uid) in enumerate(rows, 1)
    ]


def state(of: StudyTerms, decisions: Sequence[Decision] = (), now: datetime = NOW) -> ApprovalState:
    return judge(of, decisions, now).state


YES, NO = Kind.APPROVE, Kind.REJECT
FOUR_EYES = site(ApprovalsConfig(needed=2))


def test_nothing_is_let_in_before_somebody_says_so() -> None:
    of = terms()
    assert state(of) is ApprovalState.WAITING
    assert state(of, decided((YES, 1), of=of)) is ApprovalState.APPROVED


SAID: dict[str, tuple[list[tuple[Kind, int]], ApprovalState]] = {
    "a rejection after it": ([(YES, 1), (NO, 2)], ApprovalState.REJECTED),
    "a rejection by the same": ([(YES, 1), (NO, 1)], ApprovalState.REJECTED),
    "approved again": ([(YES, 1), (NO, 2), (YES, 1)], ApprovalState.APPROVED),
    "rejected again": ([(NO, 2), (YES, 1), (NO, 2)], ApprovalState.REJECTED),
    "rejected alone": ([(NO, 1)], ApprovalState.REJECTED),
}


@pytest.mark.parametrize(("rows", "found"), SAID.values(), ids=SAID.keys())
def test_a_rejection_is_final_until_it_is_approved_again(
    rows: list[tuple[Kind, int]], found: ApprovalState
) -> None:
    of = terms()
    assert state(of, decided(*rows, of=of)) is found


EYES: dict[str, tuple[list[tuple[Kind, int]], ApprovalState]] = {
    "one": ([(YES, 1)], ApprovalState.WAITING),
    "one, twice": ([(YES, 1), (YES, 1), (YES, 1)], ApprovalState.WAITING),
    "two": ([(YES, 1), (YES, 2)], ApprovalState.APPROVED),
    "one before and one after a rejection": ([(YES, 1), (NO, 3), (YES, 2)], ApprovalState.WAITING),
    "two after a rejection": ([(YES, 1), (NO, 1), (YES, 2), (YES, 1)], ApprovalState.APPROVED),
}


@pytest.mark.parametrize(("rows", "found"), EYES.values(), ids=EYES.keys())
def test_four_eyes_are_two_accounts(rows: list[tuple[Kind, int]], found: ApprovalState) -> None:
    of = terms(FOUR_EYES)
    decisions = decided(*rows, of=of)
    # Whatever they call themselves.
    called = [replace(one, name=f"Dr. {one.seq}") for one in decisions]
    assert state(of, called) is found


def test_only_the_operators_that_are_named_count() -> None:
    of = terms(site(ApprovalsConfig(needed=2, operators=("user 1", "user 2"))))
    assert state(of, decided((YES, 1), (YES, 3), of=of)) is ApprovalState.WAITING
    assert state(of, decided((YES, 1), (YES, 2), of=of)) is ApprovalState.APPROVED
    assert state(of, decided((YES, 1), (YES, 2), (NO, 3), of=of)) is ApprovalState.REJECTED
    with pytest.raises(UsageError, match="could ever be approved"):
        ApprovalsConfig(needed=2, operators=("alice",))


def test_an_approval_ends_when_the_site_says_so() -> None:
    of = terms(site(ApprovalsConfig(days=30.0)))
    for age, found in (
        (0, ApprovalState.APPROVED),
        (29, ApprovalState.APPROVED),
        (30, ApprovalState.WAITING),
    ):
        decisions = decided((YES, 1), of=of, at=NOW - timedelta(days=age))
        assert state(of, decisions) is found, age
    ahead = decided((YES, 1), of=of, at=NOW + timedelta(days=1))  # a clock that was set back
    assert state(of, ahead) is ApprovalState.WAITING
    old = decided((YES, 1), of=of, at=NOW - timedelta(days=3000))
    assert state(replace(of, file=site()), old) is ApprovalState.APPROVED


def test_an_approval_is_of_one_digest() -> None:
    """A study that differs in anything that is sent is another study."""
    of = terms()
    decisions = decided((YES, 1), of=of)
    for change in (
        "study.seed=1",
        "training.learning_rate=0.9",
        "study.name=another",
        "federation.num_rounds=29",
        "privacy.epsilon=7.5",
    ):
        assert state(terms(site(), change), decisions) is ApprovalState.WAITING, change


def changed(policy: SitePolicy = POLICY, **own: object) -> SiteFile:
    file = site(policy=policy)
    return replace(file, site=replace(file.site, **own))  # type: ignore[arg-type]


TIGHT = replace(POLICY, privacy=replace(POLICY.privacy, min_noise_multiplier=2.0))
LOOSER: dict[str, SiteFile] = {
    "less noise": changed(),
    "more rounds": changed(replace(TIGHT, accept=replace(TIGHT.accept, max_rounds=29))),
    "other records": changed(TIGHT, data="others.jsonl"),
    "another ledger": changed(TIGHT, ledger="others.ledger"),
    "another size": changed(TIGHT, public_records=1100),
    "records beside each other": changed(
        replace(TIGHT, privacy=replace(TIGHT.privacy, isolate_units=True))
    ),
}


@pytest.mark.parametrize("file", LOOSER.values(), ids=LOOSER.keys())
def test_an_approval_is_of_the_terms_that_were_shown(file: SiteFile) -> None:
    """A policy that is loosened after somebody said yes lets nothing in that they did not see."""
    of = terms(changed(TIGHT))
    decisions = decided((YES, 1), of=of)
    now = terms(file)
    verdict = judge(now, decisions, NOW)
    assert verdict.state is ApprovalState.WAITING
    assert "other terms" in verdict.why
    assert state(now, [*decisions, *decided((NO, 1), of=of)]) is ApprovalState.REJECTED


def test_an_approval_stays_where_a_change_does_not_touch_the_study() -> None:
    of = terms(changed(TIGHT))
    budget = replace(TIGHT.budget, study_epsilon=19.0)
    more = replace(TIGHT.accept, base_sha256=(BASE, OTHER, "ef" * 32))
    file = changed(replace(TIGHT, budget=budget, accept=more), max_round_seconds=60.0)
    assert state(terms(file), decided((YES, 1), of=of)) is ApprovalState.APPROVED


def test_a_rejection_stands_against_standing_approvals() -> None:
    of = terms(site(ApprovalsConfig(standing=(STANDING,))))
    assert state(of) is ApprovalState.APPROVED
    assert state(of, decided((NO, 1), of=of)) is ApprovalState.REJECTED
    assert state(of, decided((NO, 1), (YES, 1), of=of)) is ApprovalState.APPROVED


# What breaks one condition of `STANDING`, and the condition.
BREAKS: dict[str, tuple[tuple[str, ...], str]] = {
    "another base": ((f"model.sha256='{OTHER}'",), "base_sha256"),
    "another unit": (("privacy.unit=person", "data.person=person"), "unit"),
    "a label more": ((f"task.labels={[*LABELS, 'oncology']}",), "labels"),
    "a round more": (("federation.num_rounds=31",), "max_rounds"),
    "more ε": (("privacy.epsilon=8.1",), "max_epsilon"),
}


@pytest.mark.parametrize(("changes", "condition"), BREAKS.values(), ids=BREAKS.keys())
def test_every_condition_of_a_standing_approval_must_hold(
    changes: tuple[str, ...], condition: str
) -> None:
    file = site(ApprovalsConfig(standing=(STANDING,)))
    assert unmet(STANDING, terms(file), NOW) == []
    of = terms(file, *changes)
    assert state(of) is ApprovalState.WAITING
    (said,) = unmet(STANDING, of, NOW)
    assert said.startswith(f"{condition}:")


def test_a_standing_approval_ends_with_its_last_day() -> None:
    of = terms(site(ApprovalsConfig(standing=(STANDING,))))
    for now, found in (
        (datetime(2027, 6, 30, 23, 59, tzinfo=UTC), ApprovalState.APPROVED),
        (datetime(2027, 7, 1, 0, 0, tzinfo=UTC), ApprovalState.WAITING),
    ):
        assert state(of, now=now) is found


def test_shared_noise_is_let_in_where_the_approval_says_so() -> None:
    of = terms(site(ApprovalsConfig(standing=(STANDING,))))
    sharing = Sharing(sites=4, missing=0, colluding=1, bits=32)
    shared = replace(of, plan=replace(of.plan, sharing=sharing))
    assert state(shared) is ApprovalState.WAITING
    meant = site(ApprovalsConfig(standing=(replace(STANDING, shared_noise=True),)))
    assert state(replace(shared, file=meant)) is ApprovalState.APPROVED


@settings(max_examples=tries(150), deadline=None)
@given(data=st.data())
def test_a_standing_approval_never_lets_in_what_breaks_a_condition(data: st.DataObject) -> None:
    """Random studies against random conditions, by an oracle of its own."""
    draw = data.draw
    labels = ("a", "b", "c", "d")
    some = st.lists(st.sampled_from(labels), unique=True, max_size=4).map(tuple)
    standing = StandingApproval(
        base_sha256=draw(st.sampled_from([(BASE,), (OTHER,), (BASE, OTHER)])),
        tasks=draw(st.sampled_from([("sequence-classification",), ("token-classification",)])),
        unit=draw(st.sampled_from(Unit)),
        max_epsilon=draw(st.sampled_from([0.5, 2.0, 8.0])),
        max_rounds=draw(st.integers(1, 40)),
        until=draw(st.dates(date(2027, 2, 25), date(2027, 3, 5))),
        labels=draw(st.none() | some),
    )
    declared = tuple(draw(st.lists(st.sampled_from(labels), unique=True, min_size=2, max_size=4)))
    plan = Plan(
        public_records=1200,
        expected_batch_size=60,
        local_steps=1,
        num_rounds=draw(st.integers(1, 40)),
        noise_multiplier=draw(st.sampled_from([0.7, 1.5, 6])),
        max_grad_norm=1.0,
        max_update_norm=1.0,
        delta=1e-5,
        unit=draw(st.sampled_from(Unit)),
    )
    kind = draw(st.sampled_from(["sequence-classification", "token-classification"]))
    named, base = draw(some), draw(st.sampled_from([BASE, OTHER, None]))
    recipe = study()
    recipe = replace(
        recipe,
        task=replace(recipe.task, kind=kind, labels=named),
        model=replace(recipe.model, sha256=base),
    )
    file = replace(
        site(ApprovalsConfig(standing=(standing,))),
        records=RecordsConfig(task="sequence-classification", labels=declared),
    )
    of = StudyTerms(file, recipe, plan)
    allowed = declared if standing.labels is None else standing.labels
    holds = (
        base in standing.base_sha256
        and kind in standing.tasks
        and plan.unit == standing.unit
        and of_plan(plan).epsilon <= standing.max_epsilon
        and plan.num_rounds <= standing.max_rounds
        and standing.until >= NOW.date()
        and set(named) <= set(allowed)
    )
    assert (state(of) is ApprovalState.APPROVED) == holds


ROW = """
[[approvals.standing]]
base_sha256 = ["{base}"]
tasks = ["sequence-classification"]
unit = "record"
max_epsilon = 2.0
max_rounds = 30
until = 2027-06-30
"""
INVALID: dict[str, tuple[str, str]] = {
    "an unknown key": (ROW + "bases = 1\n", "standing 1.bases: unknown key"),
    "a key that is missing": (ROW.replace("max_rounds = 30\n", ""), "1.max_rounds: missing"),
    "no end": (ROW.replace("until = 2027-06-30\n", ""), "standing 1.until: missing"),
    "an end in quotes": (ROW.replace("2027-06-30", '"2027-06-30"'), "a date without quotes"),
    "an end with a time": (ROW.replace("2027-06-30", "2027-06-30T00:00:00Z"), "a date without"),
    "no base": (ROW.replace('["{base}"]', "[]"), "base_sha256: empty"),
    "half a hash": (ROW.replace("{base}", "abc"), "64 lower-case hexadecimal digits"),
    "a task of its own": (ROW.replace("sequence-c", "c"), "tasks"),
    "a negative ε": (ROW.replace("2.0", "-2.0"), "max_epsilon"),
    "ε that is no number": (ROW.replace("2.0", "nan"), "max_epsilon"),
    "a blank": (ROW.replace("30\n", '"FILL IN"\n', 1), "1.max_rounds: not filled in yet"),
    "a blank in a list": (ROW.replace("{base}", "FILL IN"), "1.base_sha256: not filled in yet"),
    "the second of two": (ROW + ROW + "x = 1\n", "standing 2.x: unknown key"),
    "one table": (
        ROW.replace("[[approvals.standing]]", "[approvals.standing]"),
        "standing: a tabl",
    ),
    "no section": ("approvals = 3", "a section [approvals] is needed"),
    "an unknown key of the section": ("[approvals]\nneed = 2", "approvals.need: unknown key"),
    "nobody": ("[approvals]\nneeded = 0", "approvals.needed"),
    "half a person": ("[approvals]\nneeded = 1.5", "approvals.needed"),
    "more than are named": ('[approvals]\nneeded = 2\noperators = ["a"]', "approvals.needed"),
    "no day": ("[approvals]\ndays = 0", "approvals.days"),
}


@pytest.mark.parametrize(("text", "said"), INVALID.values(), ids=INVALID.keys())
def test_a_section_that_cannot_be_meant_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    parts = (text, EXAMPLE) if text.startswith("approvals") else (EXAMPLE, text)
    path.write_text("\n".join(parts).replace("{base}", BASE))
    with pytest.raises(RecipeError) as refused:
        read_site(path)
    assert said in str(refused.value)


def test_the_section_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    head = '[approvals]\nneeded = 2\noperators = ["alice", "bob"]\ndays = 90\n'
    path.write_text(EXAMPLE + head + (ROW + 'labels = ["a"]\n').replace("{base}", BASE))
    found = read_site(path).approvals
    assert (found.needed, found.operators, found.days) == (2, ("alice", "bob"), 90.0)
    (one,) = found.standing
    assert (one.until, one.unit, one.labels) == (date(2027, 6, 30), Unit.RECORD, ("a",))


def test_there_are_not_more_standing_approvals_than_somebody_reads() -> None:
    problems: list[str] = []
    assert approvals_of({"standing": [{}] * 101}, problems) is None
    assert "at most 100" in problems[0]


def test_a_site_reads_when_the_coordinator_trains_on_public_records() -> None:
    stated = (f"data.public_sha256='{'c' * 64}'", "data.public_count=30", "data.public=p.jsonl")
    named = (f"study.start='{'a' * 64}'", f"study.former='{'b' * 64}'")
    replay = "federation.public_replay=6"
    for asked, said in (
        ((*stated, "training.public_steps=40"), "before round 1 40 steps of the coordinator on 30"),
        ((*stated, *named, replay), "after each round 6 steps of the coordinator on 30 public"),
        ((*stated, replay), "before round 1 200 steps and after each round 6 steps of the coord"),
    ):
        lines = in_words(facts_of(terms(None, *asked)))
        assert [said in line for line in lines if line.startswith("public")] == [True]
