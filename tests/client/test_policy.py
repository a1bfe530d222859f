"""A site uses the stricter of the coordinator's plan and its own policy, or does not take part."""

import dataclasses
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.client.policy import ProposedPlan, check, effective_plan
from cloister.client.policy_file import (
    EXAMPLE,
    AcceptPolicy,
    BudgetPolicy,
    PrivacyPolicy,
    SitePolicy,
    StatusPolicy,
    parse_policy,
    read_policy,
)
from cloister.deployment.site.policy_text import in_words
from cloister.errors import BadFileError, RecipeError, RefusedError
from cloister.privacy.config import PrivacyConfig
from cloister.privacy.evaluations import Evaluations
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.protocol.exchange import Status
from cloister.recipe import DEFAULT_SHA256, Recipe
from tests.support.examples import ALL

BASE = "ab" * 32
MINIMAL = f"""
budget.epsilon = 8
budget.delta = 1e-5
accept.tasks = ["causal-lm"]
accept.base_sha256 = ["{BASE}"]
"""
EVALUATES = "accept.evaluations = true"
# Both ε are rounded up, each by its own numerical error: at most this (accounting's own slack).
ACCOUNTANT_SLACK = 1e-3


def plan(**changes: object) -> Plan:
    """The quickstart's, with its noise for ε = 8 rounded up."""
    quickstart = Plan(
        public_records=1200,
        expected_batch_size=300,
        local_steps=1,
        num_rounds=30,
        noise_multiplier=1.13,
        max_grad_norm=8.0,
        max_update_norm=50.0,
        delta=1e-5,
    )
    return replace(quickstart, **changes)  # type: ignore[arg-type]


def asked(proposed: Plan | None = None, **changes: object) -> ProposedPlan:
    usual = ProposedPlan(
        plan=plan() if proposed is None else proposed,
        task="causal-lm",
        base_sha256=BASE,
        target_modules=("q_proj",),
        message_bytes=50_000,
        method="lora",
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def policy(toml: str = "") -> SitePolicy:
    return parse_policy(MINIMAL + toml)


def reasons(question: ProposedPlan, own: SitePolicy) -> list[str]:
    with pytest.raises(RefusedError) as refusal:
        check(question, own)
    assert refusal.value.exit_code == 4
    return str(refusal.value).splitlines()


def test_of_fewer_rounds_the_evaluations_after_them_are_left_out() -> None:
    proposed = plan(evaluations=Evaluations(rounds=(10, 20, 30), noise_multiplier=7.0))
    found = check(asked(proposed), policy(f"accept.max_rounds = 20\n{EVALUATES}"))
    assert found.evaluations == Evaluations(rounds=(10, 20), noise_multiplier=7.0)
    none = check(asked(proposed), policy(f"accept.max_rounds = 5\n{EVALUATES}"))
    assert none.evaluations is None


def test_evaluations_are_refused_for_one_reason_unless_the_site_accepts_them() -> None:
    proposed = plan(evaluations=Evaluations(rounds=(10,), noise_multiplier=0.3))  # below 0.6
    (told,) = reasons(asked(proposed), policy())
    assert told.startswith("accept.evaluations: ")
    assert reasons(asked(proposed), policy("accept.evaluations = false")) == [told]
    # Also where the policy cuts the study before its evaluations.
    assert reasons(asked(proposed), policy("accept.max_rounds = 5")) == [told]
    (told,) = reasons(asked(proposed), policy(EVALUATES))
    assert told.startswith("privacy.min_noise_multiplier: an evaluation")
    assert any("no study with private evaluations" in line for line in in_words(policy()))
    assert any("joins studies with private" in line for line in in_words(policy(EVALUATES)))


def problems(toml: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        parse_policy(toml)
    assert error.value.exit_code == 2
    return list(error.value.problems)


# The effective plan ------------------------------------------------------------------------------

rates = st.floats(0.0, 1.0, exclude_min=True)
bounds = st.floats(1e-6, 1e6)
noises = st.floats(0.2, 100.0)
deltas = st.floats(1e-8, 0.5)
counts = st.integers(1, 5000)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    records = draw(counts)
    return plan(
        public_records=records,
        expected_batch_size=draw(st.integers(1, records)),
        local_steps=draw(counts),
        num_rounds=draw(counts),
        noise_multiplier=draw(noises),
        max_grad_norm=draw(bounds),
        max_update_norm=draw(st.none() | bounds),
        delta=draw(deltas),
        unit=draw(st.sampled_from(Unit)),
        max_records=draw(st.integers(1, 8)),
    )


@st.composite
def policies(draw: st.DrawFn) -> SitePolicy:
    return SitePolicy(
        budget=BudgetPolicy(epsilon=draw(st.floats(0.1, 100)), delta=draw(deltas)),
        privacy=PrivacyPolicy(
            unit=draw(st.sampled_from(Unit)),
            person="patient",
            min_noise_multiplier=draw(noises),
            max_grad_norm=draw(bounds),
            max_sample_rate=draw(rates),
            max_delta=draw(deltas),
        ),
        accept=AcceptPolicy(
            tasks=("causal-lm",),
            base_sha256=(BASE,),
            max_rounds=draw(counts),
            max_local_steps=draw(counts),
        ),
    )


@given(plans(), policies())
def test_the_effective_plan_is_never_laxer_than_either_side(
    proposed: Plan, own: SitePolicy
) -> None:
    privacy = own.privacy
    if 1 / proposed.public_records > privacy.max_sample_rate:
        with pytest.raises(RefusedError, match="max_sample_rate"):
            effective_plan(asked(proposed), own)
        return
    effective = effective_plan(asked(proposed), own)
    assert proposed.max_grad_norm is not None
    assert effective.max_grad_norm is not None
    assert effective.noise_multiplier >= max(
        proposed.noise_multiplier, privacy.min_noise_multiplier
    )
    assert effective.max_grad_norm <= min(proposed.max_grad_norm, privacy.max_grad_norm)
    assert effective.sample_rate <= min(proposed.sample_rate, privacy.max_sample_rate)
    assert effective.expected_batch_size >= 1
    assert effective.delta <= min(proposed.delta, privacy.max_delta, own.budget.delta)
    assert effective.num_rounds <= min(proposed.num_rounds, own.accept.max_rounds)
    assert effective.local_steps <= min(proposed.local_steps, own.accept.max_local_steps)
    if Unit.PERSON in (proposed.unit, privacy.unit):
        assert effective.unit is Unit.PERSON
    # What the policy has no limit for stays as it was asked.
    for name in ("public_records", "max_update_norm", "max_records", "neighbouring", "message"):
        assert getattr(effective, name) == getattr(proposed, name)
    assert effective_plan(asked(effective), own) == effective


@given(plans(), policies())
def test_the_sample_rate_is_lowered_no_further_than_needed(proposed: Plan, own: SitePolicy) -> None:
    try:
        effective = effective_plan(asked(proposed), own)
    except RefusedError:
        return
    if effective.expected_batch_size < proposed.expected_batch_size:
        one_more = (effective.expected_batch_size + 1) / proposed.public_records
        assert one_more > own.privacy.max_sample_rate


# Few examples of few different plans: the accountants are asked twice for each.
@settings(max_examples=8 if ALL else 4, deadline=None)
@given(
    proposed=st.builds(
        plan,
        noise_multiplier=st.just(0.7),
        expected_batch_size=st.sampled_from([60, 300]),
        local_steps=st.sampled_from([1, 3]),
    ),
    noise=st.sampled_from([0.3, 0.9]),
    rate=st.sampled_from([0.1, 1.0]),
    rounds=st.sampled_from([10, 100]),
)
def test_the_effective_plan_never_costs_more_at_the_same_delta(
    proposed: Plan, noise: float, rate: float, rounds: int
) -> None:
    own = policy(
        f"privacy.min_noise_multiplier = {noise}\nprivacy.max_sample_rate = {rate}\n"
        f"accept.max_rounds = {rounds}"
    )
    effective = replace(effective_plan(asked(proposed), own), delta=proposed.delta)
    asked_cost = proposed.epsilon_after(proposed.num_rounds)
    assert effective.epsilon_after(effective.num_rounds) <= asked_cost + ACCOUNTANT_SLACK


def test_a_plan_within_the_defaults_is_left_as_it_is() -> None:
    assert check(asked(), policy()) == plan()


def test_a_lower_clipping_bound_keeps_the_noise_multiplier() -> None:
    # σ = multiplier · bound falls with the bound: ε rests on the ratio alone.
    effective = check(asked(), policy("privacy.max_grad_norm = 0.5"))
    assert (effective.noise_multiplier, effective.max_grad_norm) == (1.13, 0.5)


@pytest.mark.parametrize(("rate", "batch"), [(0.1, 120), (0.1009, 121), (0.2999, 359)])
def test_the_batch_is_the_declared_size_times_the_rate_rounded_down(
    rate: float, batch: int
) -> None:
    proposed = plan(expected_batch_size=1000)
    own = policy(f"privacy.max_sample_rate = {rate}")
    assert check(asked(proposed), own).expected_batch_size == batch


def test_a_rate_that_is_a_fraction_of_the_declared_size_is_met_exactly() -> None:
    # In float64, 0.29 · 100 is 28.999999999999996, and 29 / 100 is 0.29.
    proposed = plan(public_records=100, expected_batch_size=50)
    own = policy("privacy.max_sample_rate = 0.29")
    assert check(asked(proposed), own).expected_batch_size == 29


def test_a_plan_for_records_becomes_one_for_persons() -> None:
    effective = check(asked(), policy('privacy.unit = "person"\nprivacy.person = "patient"'))
    assert effective.unit is Unit.PERSON
    assert effective.max_records == 1  # as asked; what is drawn and clipped is a person's


def test_a_plan_for_persons_stays_one_at_a_site_that_can_tell_them() -> None:
    proposed = plan(unit=Unit.PERSON, max_records=8)
    assert check(asked(proposed), policy('privacy.person = "patient"')) == proposed


def test_the_budget_s_delta_is_a_limit_too() -> None:
    assert check(asked(), parse_policy(MINIMAL.replace("1e-5", "1e-7"))).delta == 1e-7


# Refusals ----------------------------------------------------------------------------------------


def only_reason(question: ProposedPlan, own: SitePolicy) -> str:
    (reason,) = reasons(question, own)
    return reason


def test_an_unknown_task_is_refused() -> None:
    reason = only_reason(asked(task="image-classification"), policy())
    assert reason.startswith(
        "accept.tasks: 'image-classification' asked; this site joins causal-lm"
    )
    assert "add it in site.toml" in reason


def test_an_unknown_base_is_refused_by_its_hash() -> None:
    reason = only_reason(asked(base_sha256="cd" * 32), policy())
    assert reason.startswith(f"accept.base_sha256: base model {'cd' * 32} asked")
    assert "add the hash in site.toml" in reason


def test_a_base_without_a_hash_is_refused() -> None:
    reason = only_reason(asked(base_sha256=None), policy())
    assert reason.startswith("accept.base_sha256: the study states no hash")
    assert "set model.sha256" in reason


def test_an_unknown_target_module_is_refused() -> None:
    own = policy('accept.target_modules = ["q_proj"]')
    assert check(asked(), own)
    reason = only_reason(asked(target_modules=("q_proj", "embed_tokens")), own)
    assert reason.startswith("accept.target_modules: embed_tokens asked; this site adapts q_proj")
    whole = "model.layers.3.self_attn.q_proj"
    assert check(asked(target_modules=(whole,)), own)
    assert only_reason(asked(target_modules=("model.my_q_proj",)), own)


def test_modules_that_are_not_named_are_refused_where_some_are_required() -> None:
    reason = only_reason(asked(target_modules=()), policy('accept.target_modules = ["q_proj"]'))
    assert "names no modules" in reason
    assert check(asked(target_modules=()), policy())


@pytest.mark.parametrize("size", [50_001, -1, math.nan, True])
def test_a_message_too_large_or_of_no_size_is_refused(size: object) -> None:
    own = policy("accept.max_message_bytes = 50_000")
    assert check(asked(), own)
    reason = only_reason(asked(message_bytes=size), own)
    assert reason.startswith(
        f"accept.max_message_bytes: a message of {size!r} bytes asked; at most"
    )
    assert "smaller lora.r" in reason


@pytest.mark.parametrize(
    ("proposed", "what"),
    [
        (plan(noise_multiplier=0.0), "noise_multiplier is 0"),
        (plan(noise_multiplier=0.0, max_grad_norm=None, max_update_norm=None), "privacy is off"),
    ],
)
def test_a_plan_without_privacy_is_refused_also_where_the_policy_adds_noise(
    proposed: Plan, what: str
) -> None:
    reason = only_reason(asked(proposed), policy())
    assert reason.startswith(
        f"budget.epsilon: the plan protects nothing ({what}: ε = ∞ per record)"
    )
    assert "ask the coordinator for privacy.enabled = true" in reason


def test_a_plan_without_privacy_runs_where_the_budget_is_stated_infinite() -> None:
    off = plan(noise_multiplier=0.0, max_grad_norm=None, max_update_norm=None)
    unlimited = MINIMAL.replace("epsilon = 8", "epsilon = inf")
    own = parse_policy(unlimited + "privacy.max_grad_norm = inf\nprivacy.min_noise_multiplier = 0")
    assert check(asked(off), own) == off
    # What the policy still demands is done.
    tightened = check(asked(off), parse_policy(unlimited))
    assert (tightened.noise_multiplier, tightened.max_grad_norm) == (0.6, 8.0)


def test_a_study_above_its_cap_is_refused_at_the_effective_plan_s_cost() -> None:
    # The quickstart's plan costs just under 8, and 4.1 already at half its rate of 0.25.
    assert check(asked(), policy("budget.study_epsilon = 8"))
    reason = only_reason(asked(), policy("budget.study_epsilon = 4"))
    assert reason.startswith("budget.study_epsilon: the study costs ε = 7.9")
    assert "at δ = 1e-05 per record added or removed" in reason
    assert "4 is allowed for one study; ask for more noise, fewer rounds" in reason
    lower_rate = "budget.study_epsilon = 4\nprivacy.max_sample_rate = 0.1"
    assert check(asked(), policy(lower_rate)).expected_batch_size == 120


@pytest.mark.parametrize("cost", [math.nan, math.inf])
def test_a_cost_that_is_no_finite_number_is_refused(
    cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "epsilon_after", lambda self, rounds: cost)
    assert "the study costs" in only_reason(asked(), policy("budget.study_epsilon = 8"))


def test_a_cost_that_the_accountants_cannot_show_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def disagree(self: Plan, rounds: int) -> float:
        raise RefusedError("the accountants disagree")

    monkeypatch.setattr(Plan, "epsilon_after", disagree)
    reason = only_reason(asked(), policy("budget.study_epsilon = 8"))
    assert "cannot be shown: the accountants disagree" in reason


def test_a_rate_below_one_unit_in_a_batch_is_refused() -> None:
    reason = only_reason(asked(), policy("privacy.max_sample_rate = 0.0008"))
    assert reason.startswith("privacy.max_sample_rate: 0.0008 of the declared 1200 records")
    assert "raise it in site.toml" in reason


def test_a_plan_for_persons_is_refused_where_they_cannot_be_told() -> None:
    reason = only_reason(asked(plan(unit=Unit.PERSON, max_records=8)), policy())
    assert reason.startswith("privacy.person: the plan hides persons")
    assert "name the column of persons in site.toml" in reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in (
                "public_records",
                "expected_batch_size",
                "local_steps",
                "num_rounds",
                "max_records",
            )
            for value in (0, -1, 1.5, math.nan, math.inf, True, "3", None, 10**400)
        ),
        *(
            ("noise_multiplier", value)
            for value in (math.nan, math.inf, 1.1e4, 1e30, -0.1, "1", None, True)
        ),
        *(
            (name, value)
            for name in ("max_grad_norm", "max_update_norm")
            for value in (math.nan, math.inf, -1.0, 0.0, 1e-300, 1e300, "1")
        ),
        ("max_grad_norm", None),  # noise over no bound
        *(("delta", value) for value in (math.nan, 0.0, -1e-5, 1.0, math.inf, None)),
        ("expected_batch_size", 1201),  # a sample rate above 1
        *(("unit", value) for value in ("record", "ward", None)),
        *(("neighbouring", value) for value in ("replace", "add-remove", None)),
    ],
)
def test_a_plan_that_cannot_be_verified_is_refused(name: str, value: object) -> None:
    own = policy("budget.study_epsilon = 8")
    proposed = plan(**{name: value})
    reason = only_reason(asked(proposed), own)
    assert reason.startswith(f"plan.{name}: ")
    assert "a plan that cannot be verified is refused" in reason
    with pytest.raises(RefusedError, match=rf"plan\.{name}"):
        effective_plan(asked(proposed), own)


def test_all_reasons_are_given_at_once() -> None:
    question = asked(
        plan(noise_multiplier=math.nan, delta=2.0),
        task="regression",
        base_sha256="ef" * 32,
        message_bytes=10**9,
    )
    assert [reason.split(":")[0] for reason in reasons(question, policy())] == [
        "accept.tasks",
        "accept.base_sha256",
        "accept.max_message_bytes",
        "plan.noise_multiplier",
        "plan.delta",
    ]


# Statuses ----------------------------------------------------------------------------------------


def test_a_section_of_older_files_is_read_without_effect_and_said() -> None:
    own = policy('status.allowed = ["trained", "failed"]')
    assert own.status.allowed == (Status.TRAINED, Status.FAILED)
    assert any("no effect" in line for line in in_words(own))
    assert not any("no effect" in line for line in in_words(policy()))
    assert any("budget, ready, refused, spent, unapproved." in line for line in in_words(own))


# The file ----------------------------------------------------------------------------------------


def test_the_example_is_read_and_reads_back_equal() -> None:
    example = parse_policy(EXAMPLE)
    assert example.privacy.person == "patient_id"
    assert example.status.allowed == ()
    assert example.accept.base_sha256 == (DEFAULT_SHA256,)
    assert parse_policy(example.to_toml()) == example


def test_the_example_shows_every_key() -> None:
    example = parse_policy(EXAMPLE)
    for section in dataclasses.fields(SitePolicy):
        if section.name == "status":  # of older files
            continue
        assert f"[{section.name}]" in EXAMPLE
        for key in dataclasses.fields(getattr(example, section.name)):
            assert f"\n{key.name} = " in EXAMPLE


def test_four_keys_make_a_policy_and_its_defaults_take_the_quickstart() -> None:
    own = policy()
    assert parse_policy(own.to_toml()) == own
    quickstart, recipe = PrivacyConfig(), Recipe()
    assert own.privacy.max_grad_norm == quickstart.max_grad_norm
    assert own.privacy.max_delta == quickstart.delta
    assert own.privacy.unit is quickstart.unit
    assert isinstance(recipe.data.public_records, int)
    rate = recipe.training.expected_batch_size / recipe.data.public_records
    assert own.privacy.max_sample_rate == 2 * rate
    assert own.accept.max_rounds > 3 * recipe.federation.num_rounds
    assert own.accept.max_local_steps == 10 * recipe.training.local_steps


def test_the_default_noise_keeps_one_unsampled_step_at_epsilon_8() -> None:
    one_step = plan(
        expected_batch_size=1200,
        num_rounds=1,
        noise_multiplier=PrivacyPolicy().min_noise_multiplier,
    )
    assert one_step.epsilon_after(1) == pytest.approx(8.0, abs=0.01)


def test_the_policy_s_budget_is_the_ledger_s() -> None:
    assert (policy().lifetime.epsilon, policy().lifetime.delta) == (8.0, 1e-5)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(EXAMPLE, encoding="utf-8")
    assert read_policy(path) == parse_policy(EXAMPLE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "not UTF-8 text (byte 1)"),
        (b"[budget\nepsilon = 8", "not valid TOML"),
        (b"budget.epsilon = 8\nbudget.epsilon = 9", "not valid TOML"),
        (b"epsilon = " + b"[" * 100_000, "not valid TOML"),
    ],
    ids=["missing", "not text", "malformed", "a key twice", "nested without end"],
)
def test_a_file_that_cannot_be_read_trains_nothing(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "site.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError) as error:
        read_policy(path)
    assert error.value.exit_code == 3
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)
    assert "nothing is trained" in str(error.value)


def test_a_folder_in_the_file_s_place_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="cannot be read"):
        read_policy(tmp_path)


def test_problems_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("", encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        read_policy(path)
    assert error.value.problems[0] == (
        f"{path}: budget.epsilon: missing, and it has no default; for example epsilon = 8.0"
    )


def test_what_has_no_default_must_be_stated() -> None:
    assert [line.split(", and")[0] for line in problems("")] == [
        "budget.epsilon: missing",
        "budget.delta: missing",
        "accept.tasks: missing",
        "accept.base_sha256: missing",
    ]


@pytest.mark.parametrize("key", ["epsilon", "delta", "tasks", "base_sha256"])
def test_each_of_them_must(key: str) -> None:
    lines = [line for line in MINIMAL.splitlines() if f".{key} =" not in line]
    (problem,) = problems("\n".join(lines))
    assert f".{key}: missing, and it has no default; for example {key} = " in problem


@pytest.mark.parametrize("section", ["budget", "privacy", "accept", "status"])
def test_an_unknown_key_is_refused_in_every_section(section: str) -> None:
    (problem,) = problems(MINIMAL + f"{section}.colour = 1")
    assert problem.startswith(f"{section}.colour: unknown key")


def test_an_unknown_key_or_section_at_the_top_is_refused() -> None:
    # Before the first section, where a key of its own may stand.
    assert problems("colour = 1\n" + MINIMAL) == [
        "colour: unknown section; known: budget, accept, privacy, status"
    ]
    (problem,) = problems(MINIMAL + "[limits]\nepsilon = 1")
    assert problem.startswith("limits: unknown section")


def test_a_misspelt_key_is_told_its_neighbour() -> None:
    (problem,) = problems(MINIMAL + "privacy.max_gradnorm = 1.0")
    assert problem == "privacy.max_gradnorm: unknown key; did you mean max_grad_norm?"


def test_a_section_must_be_a_table() -> None:
    assert problems(MINIMAL + "privacy = 3") == ["privacy: 3 given; a section [privacy] is needed"]
    assert "a section [status] is needed" in problems(MINIMAL + "[[status]]")[0]


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ('privacy.min_noise_multiplier = "1"', "a number"),
        ("privacy.unit = 'ward'", '"record" or "person"'),
        ("privacy.person = 3", "a string"),
        ("privacy.max_grad_norm = true", "a number"),
        ("accept.max_rounds = 1.5", "a whole number"),
        ("accept.target_modules = 'query'", "a list of a string"),
        ("status.allowed = ['trained', 'why']", '"trained" or "unapproved" or "refused"'),
    ],
)
def test_a_wrong_type_is_refused_with_what_is_needed(line: str, needed: str) -> None:
    (problem,) = problems(MINIMAL + line)
    assert problem.startswith(line.split(" =")[0] + ": ")
    assert needed in problem


@pytest.mark.parametrize(
    "line",
    [
        "budget.study_epsilon = 0",
        "budget.study_epsilon = nan",
        "budget.study_epsilon = 8.1",  # above the budget
        "privacy.person = ''",
        "privacy.min_noise_multiplier = -1",
        "privacy.min_noise_multiplier = nan",
        "privacy.min_noise_multiplier = inf",
        "privacy.min_noise_multiplier = 1e12",
        "accept.max_adapter_value = 0",
        "accept.max_adapter_value = inf",
        "privacy.max_delta = 1e-12",
        "privacy.min_noise_multiplier = 0.1",  # below the accountants' range
        "privacy.max_grad_norm = 0",
        "privacy.max_grad_norm = nan",
        "privacy.max_grad_norm = inf",  # with a finite budget
        "privacy.max_sample_rate = 0",
        "privacy.max_sample_rate = 1.1",
        "privacy.max_sample_rate = nan",
        "privacy.max_delta = 0",
        "privacy.max_delta = 1",
        "privacy.max_delta = nan",
        "accept.target_modules = ['']",
        "accept.max_rounds = 0",
        "accept.max_local_steps = -1",
        "accept.max_message_bytes = 0",
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(line: str) -> None:
    (problem,) = problems(MINIMAL + line)
    assert problem.startswith(line.split(" =")[0] + ": ")


@pytest.mark.parametrize(
    ("instead", "of"),
    [
        ("budget.epsilon = 0", "budget.epsilon = 8"),
        ("budget.epsilon = nan", "budget.epsilon = 8"),
        ("budget.epsilon = 'inf'", "budget.epsilon = 8"),
        ("budget.delta = 0", "budget.delta = 1e-5"),
        ("budget.delta = 1", "budget.delta = 1e-5"),
        ("accept.tasks = []", 'accept.tasks = ["causal-lm"]'),
        ("accept.tasks = ['chat']", 'accept.tasks = ["causal-lm"]'),
        ("accept.base_sha256 = []", f'accept.base_sha256 = ["{BASE}"]'),
        ("accept.base_sha256 = ['AB12']", f'accept.base_sha256 = ["{BASE}"]'),
    ],
)
def test_what_must_be_stated_must_be_meant(instead: str, of: str) -> None:
    (problem,) = problems(MINIMAL.replace(of, instead))
    assert problem.startswith(instead.split(" =")[0] + ": ")


def test_persons_need_their_column() -> None:
    (problem,) = problems(MINIMAL + 'privacy.unit = "person"')
    assert problem.startswith("privacy.person: missing; name the column of persons")


def test_a_bound_may_be_infinite_only_without_noise() -> None:
    unlimited = MINIMAL.replace("epsilon = 8", "epsilon = inf") + "privacy.max_grad_norm = inf\n"
    (problem,) = problems(unlimited)
    assert problem.startswith("privacy.max_grad_norm: inf given; noise needs a bound")


def test_one_wrong_key_hides_no_other() -> None:
    paths = [
        line.split(":")[0]
        for line in problems("""
        budget.epsilon = -1
        budget.colour = "red"
        privacy.max_delta = 2
        privacy.max_sample_rate = "all"
        accept.tasks = ["causal-lm"]
        accept.max_rounds = 0
        accept.max_local_steps = 0
        limits.epsilon = 1
    """)
    ]
    assert paths == [
        "limits",
        "budget.delta",
        "budget.epsilon",
        "budget.colour",
        "accept.base_sha256",
        "accept.max_rounds",
        "accept.max_local_steps",
        "privacy.max_delta",
        "privacy.max_sample_rate",
    ]


def test_a_policy_made_in_code_holds_the_same_rules() -> None:
    with pytest.raises(RecipeError, match=r"privacy\.person"):
        replace(policy(), privacy=PrivacyPolicy(unit=Unit.PERSON))
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy().status = StatusPolicy()  # type: ignore[misc]


def test_a_kind_of_adapter_that_the_site_does_not_name_is_refused() -> None:
    own = policy('accept.methods = ["lora", "bitfit"]\n')
    assert check(asked(method="bitfit"), own).num_rounds > 0
    reason = only_reason(asked(method="ia3"), own)
    assert reason.startswith("accept.methods: 'ia3' asked; this site trains lora, bitfit")
    assert check(asked(method="ia3"), policy()).num_rounds > 0
