"""Recipes: frozen, hashed, and refused with every problem at once."""

import dataclasses
import json
from pathlib import Path

import pytest

from cloister.errors import BadFileError, RecipeError
from cloister.fields import SYNONYMS, field_types, parse_assignment
from cloister.recipe import Recipe, parse_recipe, read_recipe, warnings
from cloister.recipe.read import KINDS
from cloister.toml_text import MOST_BYTES


def problems(text: str = "", *assignments: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, assignments)
    return list(caught.value.problems)


def test_the_empty_recipe_has_the_defaults_and_a_rate_by_its_noise() -> None:
    assert parse_recipe("", ["training.learning_rate=1.0"]) == Recipe()
    filled = parse_recipe("")
    training = dataclasses.replace(Recipe().training, learning_rate=filled.training.learning_rate)
    privacy = dataclasses.replace(Recipe().privacy, max_grad_norm=1.0)
    assert filled == Recipe(training=training, privacy=privacy) != Recipe()


def test_a_recipe_written_reads_back_equal() -> None:
    recipe = parse_recipe(
        '[data]\npublic_records = [500, 700]\nsites = 2\n[task]\nlabels = ["ä", "b\\"c"]\n'
        "[training]\nlearning_rate = 1\n"
    )
    assert parse_recipe(recipe.to_toml()) == recipe.resolved()
    assert parse_recipe(recipe.to_toml()).digest() == recipe.digest()


def test_the_digest_is_the_same_on_every_machine() -> None:
    # A change of any default changes it: old runs cannot be resumed then.
    one, other = parse_recipe("[study]\nseed = 1\n"), parse_recipe("", ["study.seed=1"])
    assert one.digest() == other.digest() != Recipe().digest()


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().study.seed = 3  # type: ignore[misc]


def test_assignments_win_over_the_file_and_later_ones_over_earlier() -> None:
    recipe = parse_recipe("[study]\nseed = 1\n", ["study.seed=2", "study.seed=3"])
    assert recipe.study.seed == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=2", 2),
        ("a.b=0.5", 0.5),
        ("a.b=true", True),
        ("a.b='x y'", "x y"),
        ("a.b=x y", "x y"),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=", ""),
        ("a.b=x=y", "x=y"),
    ],
)
def test_assignments_are_toml_or_bare_text(text: str, value: object) -> None:
    assert parse_assignment(text) == ("a", "b", value)


def test_every_problem_is_reported_at_once_with_its_path() -> None:
    found = problems(
        "[privacy]\nepsilon = 1.0\nnoise_multiplier = 1.0\n[training]\nlocal_stepps = 3\n"
        'learning_rate = "fast"\n[extra]\n',
        "data.sites=0",
        "nonsense",
    )
    assert len(found) == 6
    text = "\n".join(found)
    assert "privacy.epsilon, noise_multiplier: both given" in text
    assert "training.local_stepps: unknown key; did you mean local_steps?" in text
    assert "training.learning_rate: 'fast' given; a number from 1e-12 to 1e+06 needed" in text
    assert "extra: unknown section" in text
    assert "data.sites: 0 given" in text
    assert "--set nonsense: section.key=value is needed" in text


@pytest.mark.parametrize(
    "more", ["\n[privacy]\nepsilon = 100", "\nseed = 3", "\nseed.x = 3\n", "\n[[a]]"]
)
def test_an_assignment_is_of_one_field(more: str) -> None:
    (found,) = problems("", f"study.name='x'{more}")
    assert "study.name and more given; one field is needed" in found


def test_an_assignment_may_have_lines() -> None:
    assert parse_recipe("", ["data.public_records=[1000,\n 1200]", "data.sites=2"])
    template = "{% for m in messages %}\nx\n{% endfor %}"
    read = parse_recipe("", ["task.kind=causal-lm", f"task.chat_template={template}"])
    assert read.task.chat_template == template


def test_a_long_assignment_is_told_short() -> None:
    (found,) = problems("", "x" * 5000)
    assert len(found) < 200


@pytest.mark.parametrize(
    "field", ["data.train", "data.test", "data.text", "data.label", "data.person", "model.base"]
)
@pytest.mark.parametrize(
    "value", ["", "a\u202eb", "a\u2066b", "a\x1bb", "a\x00b", "a\nb", "a\u2028b"]
)
def test_a_name_is_there_and_what_it_looks_like(field: str, value: str) -> None:
    (found,) = problems("", f"{field}={json.dumps(value)}")
    assert found.startswith(f"{field}: ")
    assert "visible characters in one line needed" in found
    assert found.isprintable()


def test_an_empty_label_is_refused_and_joiners_are_part_of_a_name() -> None:
    (found,) = problems("", "task.labels=['a','']")
    assert "task.labels: '' given as value 2" in found
    name = "\u0646\u0627\u0645\u200c\u0647\u0627"  # Persian, with a zero-width non-joiner
    assert parse_recipe("", [f"data.text={name}"]).data.text == name


def test_a_delta_that_protects_nobody_is_refused() -> None:
    (found,) = problems("", "privacy.delta=0.99")
    assert found == "privacy.delta: 0.99 given; a number from 1e-09 to 0.1 needed"


@pytest.mark.parametrize("size", [MOST_BYTES + 10, 10 * MOST_BYTES])
def test_a_recipe_that_is_too_long_is_told_truly(tmp_path: Path, size: int) -> None:
    (tmp_path / "r.toml").write_text("#" * size)
    with pytest.raises(BadFileError, match=f"more than {MOST_BYTES} bytes given"):
        read_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["data.public_records=[1000, 2000]", "data.sites=3"],
            "2 numbers given for data.sites = 3",
        ),
        (["training.expected_batch_size=2000"], "sample rate would be above 1"),
        (["strategy.weights=[1.0]"], "strategy.weights: 1 given"),
        (["federation.min_sites=9"], "federation.min_sites: 9 is above"),
        (["federation.patience=2"], "set data.validation"),
        (["task.kind=causal-lm", "lora.head=linear"], "leave lora.head out"),
        (["task.kind=causal-lm", "lora.train=none"], "head is frozen"),
        (["training.probe_rounds=99"], "leaves none"),
        (["lora.head=frozen", "training.probe_rounds=1"], "no head is trained"),
        (["training.probe_learning_rate=2.0"], "training.probe_rounds is 0"),
        (
            ["training.adapter_dtype=int8", "lora.train=b-moving", "strategy.name=fedsvd"],
            "products of tensors exact",
        ),
        (["training.warmup_steps=10000"], "more than the study's"),
        (["training.padded_lengths=[16, 32]"], "task.max_length ="),
        (["training.padded_lengths=[32, 16]"], "ascending order"),
        (["training.padded_lengths=[]"], "ascending order"),
        (["training.padded_lengths=[0, 64]"], "padded_lengths"),
        (["lora.head=frozen", "lora.train=none"], "leave nothing to train"),
        (["training.expected_batch_size=true"], "true given"),
        (["model.sha256=abc"], "64 lower-case hexadecimal digits"),
        (["privacy.unit=galaxy"], '"record" or "person" needed'),
        (["task.kind=poetry"], "causal-lm"),
    ],
)
def test_contradictions_are_refused(assignments: list[str], message: str) -> None:
    found = problems("", *assignments)
    assert len(found) == 1
    assert message in found[0].replace("True", "true")


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["strategy.name=fedsvd", "lora.train=b"], 'lora.train: "b" given; fedsvd needs'),
        (["lora.train=b-moving"], "a strategy that changes A between rounds, but fedavg does not"),
        (["strategy.name=fedex", "lora.train=both"], "lora.residual: missing; fedex keeps"),
        (["strategy.name=fedex", "lora.train=b", "lora.residual=4"], 'fedex needs "both"'),
        (["lora.residual=4"], "lora.residual: 4 given, but fedavg keeps none"),
        (
            ["strategy.name=fedex", "lora.train=both", "lora.residual=4", "lora.head=lora"],
            "lora.head",
        ),
        (
            [
                "strategy.name=fedex",
                "lora.train=both",
                "lora.residual=4",
                "training.mode=gradient-rounds",
            ],
            "training.mode: gradient rounds average gradients",
        ),
        (["lora.ranks=[2, 2, 4, 4]"], "lora.ranks: fedavg averages factors"),
        (
            ["strategy.name=flexlora", "lora.train=both", "lora.ranks=[2, 4]"],
            "lora.ranks: 2 given for data.sites = 4",
        ),
        (["lora.ranks=[2, 5, 4, 4]"], "lora.ranks: 5 given; 1 to lora.r = 4"),
        (
            ["strategy.name=flora", "lora.train=both", "lora.residual=4"],
            "training.local_steps: flora",
        ),
        (
            [
                "strategy.name=fedsvd",
                "lora.train=both",
                "lora.use_dora=true",
                "privacy.enabled=false",
            ],
            "lora.use_dora: fedsvd",
        ),
    ],
)
def test_strategies_name_what_they_do_not_go_with(assignments: list[str], message: str) -> None:
    assert any(message in problem for problem in problems("", *assignments))


def test_a_delta_too_large_for_a_site_is_warned_of() -> None:
    assert warnings(parse_recipe("")) == []
    assert "privacy.delta" in warnings(parse_recipe("", ["privacy.delta=0.001"]))[0]


def test_another_base_loses_the_default_hash() -> None:
    assert parse_recipe("").model.sha256 is not None
    assert parse_recipe("", ["model.base=some/where"]).model.sha256 is None


def test_a_missing_or_malformed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[study\n")
    with pytest.raises(BadFileError, match=r"broken\.toml: not valid TOML"):
        read_recipe(broken)


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("lora.rank=8", "lora.rank: unknown key; did you mean r?"),
        ("training.lr=1", "training.lr: unknown key; did you mean learning_rate?"),
        ("privacy.clip=1", "privacy.clip: unknown key; did you mean max_grad_norm?"),
        ("lora.layers=2", "lora.layers: unknown key; did you mean top_layers?"),
        ("lora.trainable=b", "lora.trainable: unknown key; did you mean train?"),
        ("privacy.target_delta=1", "privacy.target_delta: unknown key; did you mean delta?"),
        ("training.num_steps=1", "training.num_steps: unknown key; did you mean local_steps?"),
        ("strategy.lr=1", "strategy.lr: unknown key; did you mean learning_rate?"),
        ("strategy.type=fedavg", "strategy.type: unknown key; did you mean name?"),
        ("data.institution=a", "data.institution: unknown key; did you mean site?"),
        ("data.text_column=a", "data.text_column: unknown key; did you mean text?"),
        ("data.dataset=a", "data.dataset: unknown key; did you mean train?"),
        (
            "federation.min_clients=2",
            "federation.min_clients: unknown key; did you mean min_sites?",
        ),
        ("machine.gpu=0", "machine.gpu: unknown key; did you mean device?"),
        ("study.experiment=a", "study.experiment: unknown key; did you mean name?"),
        ("lora.ramks=[1]", "lora.ramks: unknown key; did you mean ranks?"),
        (
            "training.epsilon=3",
            "training.epsilon: unknown key; it is a key of another section: privacy.epsilon",
        ),
        ("epsilon=3", "--set epsilon=3: the section is missing; privacy.epsilon=3 is needed"),
        ("rank=3", "--set rank=3: the section is missing; lora.r=3 is needed"),
        (
            "learning_rate=3",
            "--set learning_rate=3: the section is missing; training.learning_rate=3 or "
            "strategy.learning_rate=3 is needed",
        ),
    ],
)
def test_a_key_that_is_not_one_is_told_with_what_was_meant(assignment: str, told: str) -> None:
    assert problems("", assignment) == [told]


def test_a_key_outside_of_its_section_is_told_with_the_section() -> None:
    assert problems("epsilon = 3.0\n") == [
        "epsilon: unknown section; it is a key, not a section: privacy.epsilon"
    ]


def test_no_synonym_is_a_field_of_its_section_or_means_two_fields() -> None:
    for name, kind in KINDS.items():
        synonyms = [
            word
            for field in dataclasses.fields(kind)
            for word in field.metadata.get(SYNONYMS, "").split()
        ]
        assert len(set(synonyms)) == len(synonyms), name
        assert not set(synonyms) & set(field_types(kind)), name
