"""A site decides on a study by its recipe and `site.toml` only, and opens no other file."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.client.acceptance import accept, proposed_plan
from cloister.client.declared_records import RecordsConfig
from cloister.client.policy_file import parse_policy
from cloister.client.site_file import SiteConfig, SiteFile
from cloister.errors import RecipeError, RefusedError, UsageError
from cloister.recipe import Recipe, parse_recipe
from cloister.tasks.template_rules import template_sha256
from tests.tasks.test_template import CHATML, FORBIDDEN

BASE = "ab" * 32
LABELS = ("a", "b", "c")
NOWHERE = Path("/nonexistent")
CHAT = ["task.kind=causal-lm", "task.labels=[]"]


def recipe(*assignments: str) -> Recipe:
    usual = [
        "model.base=evil-org/two-terabytes",
        f"model.sha256={BASE}",
        "task.labels=['a','b','c']",
        "training.expected_batch_size=64",
        "lora.target_modules=['query']",
    ]
    return parse_recipe("", [*usual, *assignments])


def site(more: str = "", **records: object) -> SiteFile:
    policy = parse_policy(
        "[budget]\nepsilon = 20.0\ndelta = 2e-5\n[privacy]\n"
        f'[accept]\ntasks = ["sequence-classification", "causal-lm"]\nbase_sha256 = ["{BASE}"]\n'
        + more
    )
    own = SiteConfig(name="ward", data="r.jsonl", public_records=1200, ledger="r.ledger")
    declared = {"task": "sequence-classification", "labels": LABELS, **records}
    return SiteFile(NOWHERE / "site.toml", own, policy, RecordsConfig(**declared))  # type: ignore[arg-type]


def chat_site(more: str = "") -> SiteFile:
    return site(more, task="causal-lm", labels=())


def refused(asked: Recipe, file: SiteFile) -> str:
    with pytest.raises(RefusedError) as found:
        accept(asked, file)
    return str(found.value)


def test_a_study_that_fits_is_accepted_though_neither_base_nor_data_are_there() -> None:
    plan = accept(recipe(), site())
    least = site().policy.privacy.min_noise_multiplier
    assert plan == replace(proposed_plan(recipe(), site()), noise_multiplier=least)
    assert (plan.public_records, plan.message) == (1200, ())


def test_accepting_looks_at_no_file_base_or_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*args: object, **more: object) -> None:
        raise AssertionError(f"a file was touched: {args}")

    for name in ("open", "stat", "exists", "is_file", "is_dir", "read_text", "read_bytes"):
        monkeypatch.setattr(Path, name, touched)
    monkeypatch.setattr("socket.socket.connect", touched)
    accept(recipe(), site())
    refused(recipe("task.labels=['a','b']", "model.sha256=" + "cd" * 32), site())
    source = (Path(__file__).parents[2] / "cloister/client/acceptance.py").as_posix()
    monkeypatch.undo()
    imported = {
        getattr(node, "module", "") or ""
        for node in ast.walk(ast.parse(Path(source).read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    assert not [
        name
        for name in imported - {"cloister.models.config"}  # sections of a recipe, no model
        if name.startswith(
            (
                "cloister.models",
                "cloister.data",
                "cloister.training",
                "cloister.deployment.site.records",
            )
        )
    ]


# A study must name every label that the site declares: were one missing, the answer would tell
# whether a record has it.
@pytest.mark.parametrize("missing", LABELS)
def test_a_study_that_lacks_a_declared_label_is_refused(missing: str) -> None:
    named = [label for label in LABELS if label != missing]
    assert f"task.labels: the study lacks {missing}" in refused(
        recipe(f"task.labels={named}"), site()
    )


def test_a_study_may_name_more_labels_in_any_order() -> None:
    accept(recipe("task.labels=['d','c','b','a']"), site())


@pytest.mark.parametrize(
    ("changes", "file", "why"),
    [
        (["task.labels=[]"], site(), "task.labels: the study names none"),
        (CHAT, site(), "records.task: this site's records are for sequence-classification"),
        ([], chat_site(), "records.task: this site's records are for causal-lm"),
        (["model.sha256=" + "cd" * 32], site(), "accept.base_sha256: base model cdcd"),
        (["task.max_length=4097"], site(), "accept.max_length: records of 4097 tokens asked"),
        (["task.max_length=65"], site("max_length = 64"), "at most 64 are taken"),
        (["training.expected_batch_size=1300", "data.public_records=2000"], site(), "above the"),
        (["lora.target_modules=['dense']"], site('target_modules = ["query"]'), "dense asked"),
        (["privacy.enabled=false"], site(), "budget.epsilon: the plan protects nothing"),
        (
            ["privacy.epsilon=8.0"],
            replace(
                site(),
                policy=parse_policy(
                    "[budget]\nepsilon = 9.0\ndelta = 2e-5\nstudy_epsilon = 0.5\n[accept]\n"
                    f'tasks = ["sequence-classification"]\nbase_sha256 = ["{BASE}"]\n'
                ),
            ),
            "budget.study_epsilon",
        ),
        (["privacy.unit=person", "data.person=p"], site(), "privacy.person"),
    ],
)
def test_what_a_site_does_not_join_is_refused_by_name(
    changes: list[str], file: SiteFile, why: str
) -> None:
    assert why in refused(recipe(*changes), file)


CHEAP = [
    "model.sha256=" + "cd" * 32,
    "task.labels=['a','b']",
    "task.kind=token-classification",
    "task.max_length=4097",
    "data.public_records=2000",
]


@pytest.mark.parametrize("change", [[one] for one in CHEAP[:4]] + [CHEAP])
def test_noise_is_solved_for_only_where_nothing_else_is_wrong(
    change: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def solved(*args: object, **more: object) -> None:
        raise AssertionError("the noise was solved for, or its cost was computed")

    monkeypatch.setattr("cloister.privacy.plan.calibrate", solved)
    monkeypatch.setattr("cloister.privacy.plan.epsilon", solved)
    stated = ["training.learning_rate=1.0"]  # else the rate follows from the noise
    refused(recipe(*stated, *change), site())


SHARED = (
    "privacy.noise=shared",
    "privacy.epsilon=1.0",
    "training.mode=gradient-rounds",
    "training.local_steps=1",
)


@pytest.mark.parametrize("sizes", ["12000", "[12000, 12000, 12000]"])
def test_noise_is_shared_among_sites_of_one_declared_size_alone(sizes: str) -> None:
    """A larger site needs less noise for its own ε, and its share is too small for others'."""
    partners = site(f'noise_partners = ["{"ab" * 32}", "{"cd" * 32}"]')
    asked = (*SHARED, "data.sites=3", f"data.public_records={sizes}")
    assert "this site declares 1200" in refused(recipe(*asked), partners)
    accept(recipe(*SHARED, "data.sites=3", "data.public_records=1200"), partners)


def test_many_names_are_no_wall_in_a_refusal() -> None:
    modules = [f"layer.{number}.query" for number in range(1000)]
    told = refused(recipe(f"lora.target_modules={modules}"), site('target_modules = ["key"]'))
    assert "layer.4.query and 995 more asked" in told
    assert len(told) < 1000
    assert "and 95 more" in refused(
        recipe(), site(labels=tuple(f"{number:03}" for number in range(100)))
    )


def test_a_study_without_the_base_s_hash_is_refused() -> None:
    bare = recipe()
    asked = replace(bare, model=replace(bare.model, sha256=None))
    assert "accept.base_sha256: the study states no hash" in refused(asked, site())


def test_every_reason_is_given_at_once() -> None:
    asked = recipe("task.labels=['a']", "task.max_length=5000", "model.sha256=" + "cd" * 32)
    lines = refused(asked, site()).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "task.labels",
        "accept.max_length",
        "accept.base_sha256",
    ]


def test_modules_that_only_the_base_can_name_are_left_for_later() -> None:
    accept(recipe("lora.target_modules=[]"), site('target_modules = ["query"]'))


def test_a_file_from_before_there_were_declarations_joins_nothing() -> None:
    old = replace(site(), records=None)
    assert "add a section [records]" in refused(recipe(), old)
    with pytest.raises(RecipeError, match="records: missing"):
        assert old.declared


# Templates --------------------------------------------------------------------------------------


def chat(template: str | None) -> Recipe:
    made = recipe(*CHAT)
    return replace(made, task=replace(made.task, chat_template=template))


def test_a_study_without_a_template_of_its_own_is_accepted() -> None:
    accept(chat(None), chat_site())


def test_a_template_is_accepted_by_its_hash() -> None:
    digest = template_sha256(CHATML)
    assert f"SHA-256 {digest}" in refused(chat(CHATML), chat_site())
    accept(chat(CHATML), chat_site(f'templates = ["{digest}"]'))
    assert "accept.templates" in refused(chat(CHATML + " "), chat_site(f'templates = ["{digest}"]'))


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_template_that_asks_is_refused_even_by_a_hash_that_is_listed(name: str) -> None:
    digest = template_sha256(FORBIDDEN[name])
    file = chat_site(f'templates = ["{digest}"]')
    assert "task.chat_template: " in refused(chat(FORBIDDEN[name]), file)


SCALE = ["task.kind=scoring", "task.labels=[]", "task.score_range=[0, 6]", "task.score_step=1"]


def marks(**scale: object) -> SiteFile:
    file = site(task="scoring", labels=(), **scale)
    accept_scoring = replace(file.policy.accept, tasks=("scoring",))
    return replace(file, policy=replace(file.policy, accept=accept_scoring))


def test_a_study_of_scores_is_accepted_on_the_scale_that_the_site_declares() -> None:
    declared = marks(score_range=(0.0, 6.0), score_step=1.0)
    assert accept(recipe(*SCALE), declared).public_records == 1200
    assert declared.scale is not None
    assert str(declared.scale) == "0 to 6 in steps of 1"


@pytest.mark.parametrize(
    "asked", [("task.score_range=[0, 5]",), ("task.score_step=0.5",), ("task.score_range=[0, 12]",)]
)
def test_another_scale_is_refused_because_it_would_tell_which_scores_there_are(
    asked: tuple[str, ...],
) -> None:
    said = refused(recipe(*SCALE, *asked), marks(score_range=(0.0, 6.0), score_step=1.0))
    assert "this site declares 0 to 6 in steps of 1" in said


SHOP = ["task.kind=recommendation", "task.labels=[]", "task.items='items.jsonl'"]


def shop(**declared: object) -> SiteFile:
    file = site(task="recommendation", labels=(), **declared)
    return replace(
        file,
        policy=replace(file.policy, accept=replace(file.policy.accept, tasks=("recommendation",))),
    )


def test_a_study_of_items_states_their_hash_and_a_site_names_its_own_copy() -> None:
    declared = shop(items="copy/items.jsonl")
    assert declared.items == str(NOWHERE / "copy/items.jsonl")
    stated = recipe(*SHOP, "task.items_sha256=" + "ab" * 32)
    assert accept(stated, declared).public_records == 1200
    assert "task.items_sha256: the study states none" in refused(recipe(*SHOP), declared)
    assert shop(items="synthetic:shops").items == "synthetic:shops"


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({"task": "recommendation"}, "items: none given"),
        ({"task": "recommendation", "items": "a", "labels": LABELS}, "leave them out"),
        ({"task": "causal-lm", "items": "a"}, "only recommendation has them"),
        ({"task": "scoring"}, "score_range: none given"),
        ({"task": "scoring", "score_range": (0.0, 6.0), "labels": LABELS}, "leave the key out"),
        ({"task": "scoring", "score_range": (6.0, 0.0)}, "lower end"),
        ({"task": "causal-lm", "score_range": (0.0, 6.0)}, "only scoring has it"),
        ({"task": "multi-label-classification"}, "at least 1"),
    ],
)
def test_a_declaration_that_makes_no_scale_or_labels_is_refused(
    records: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        RecordsConfig(**records)  # type: ignore[arg-type]
