"""The rate of a private linear head that states none follows from its noise."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.errors import RecipeError
from cloister.recipe import Recipe, parse_document, parse_recipe, read_run_recipe, sent_document
from cloister.recipe.head_defaults import HIDDEN, LOGIT_NOISE, LONGEST_BESIDE, head_rate
from cloister.recipe.rate_by_noise import mean_noise
from cloister.recipe.vote_study import read_vote_study
from cloister.server.aggregate_noise import aggregate_noise
from cloister.strategies.build import make_strategy
from cloister.training.optimizer import learning_rate_at

HEAD = ["lora.train=none", "data.partition=iid", "data.sites=5"]
SHARED = ["privacy.noise=shared"]
NAMES = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    "changes",
    [
        [],
        SHARED,
        [*SHARED, "privacy.missing_sites=1"],
        ["privacy.epsilon=1.0"],
        ["data.public_records=[600, 1200, 1200, 2400, 5000]"],
    ],
    ids=["own", "shared", "shared, one missing", "ε = 1", "sites of all sizes"],
)
def test_the_noise_is_that_which_the_coordinator_knows(changes: list[str]) -> None:
    """Of the proposed plans; a secure sum that all sites are in has more than it must have."""
    recipe = parse_recipe("", [*HEAD, *changes, "privacy.max_update_norm=1e6"])
    rate = learning_rate_at(recipe.training, 0, recipe.federation.num_rounds)
    known = aggregate_noise(recipe, NAMES)(1, NAMES, 770) / rate**2
    assert mean_noise(recipe) == pytest.approx(math.sqrt(known), rel=1e-3)


@pytest.mark.parametrize("schedule", ["warmup-linear", "warmup-cosine", "constant"])
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm"])
def test_a_logit_has_noise_of_the_stated_size_after_the_last_round(
    schedule: str, strategy: str
) -> None:
    """Rounds of noise alone, at the default rate, through the strategy that runs."""
    given = [*HEAD, f"training.schedule={schedule}", f"strategy.name={strategy}"]
    given += ["strategy.momentum=0.5"] if strategy == "fedavgm" else []
    recipe = parse_recipe("", given)
    made, rng = make_strategy(recipe.strategy, NAMES), np.random.default_rng(1)
    state, rounds = made.init(Adapter({"w": np.zeros(4000)})), recipe.federation.num_rounds
    for number in range(rounds):
        deviation = mean_noise(recipe) * learning_rate_at(recipe.training, number, rounds)
        noise = {site: Adapter({"w": rng.normal(0, deviation, 4000)}) for site in ("all",)}
        state = made.aggregate(state, noise)
    # Two digits of the rate, rounds that are not many, and momentum's last rounds: 10 %.
    assert float(state.adapter["w"].std()) * math.sqrt(HIDDEN) == pytest.approx(
        LOGIT_NOISE, rel=0.1
    )


def test_what_was_filled_in_is_stated_and_sent(tmp_path: Path) -> None:
    recipe = parse_recipe("", HEAD)
    assert recipe.privacy.max_grad_norm == 1.0
    assert recipe.strategy.name == "fedavgm"
    assert recipe.training.learning_rate == head_rate(recipe, mean_noise(recipe)) > 1.0
    assert parse_document(sent_document(recipe)).digest() == recipe.digest()
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert read_run_recipe(tmp_path / "recipe.toml") == recipe.resolved()


def test_a_run_that_was_begun_before_keeps_what_it_ran_with(tmp_path: Path) -> None:
    begun = parse_recipe("", [*HEAD, "training.learning_rate=1.0", "privacy.max_grad_norm=8.0"])
    (tmp_path / "recipe.toml").write_text(begun.to_toml())
    assert read_run_recipe(tmp_path / "recipe.toml").digest() == begun.digest()


@pytest.mark.parametrize(
    "changes",
    [
        ["training.learning_rate=1.0"],
        ["privacy.max_grad_norm=8.0"],
        ["privacy.enabled=false"],
        ["privacy.noise_multiplier=0"],
        ["training.mode=local-steps"],
        ["strategy.name=median"],
        ["lora.train=both"],
        ["lora.train=b", "lora.head=lora"],
        ["task.kind=multi-label-classification"],
    ],
)
def test_other_studies_keep_their_defaults(changes: list[str]) -> None:
    recipe = parse_recipe("", [*HEAD, *changes])
    plain = Recipe()
    assert recipe.training.learning_rate == plain.training.learning_rate
    assert recipe.privacy.max_grad_norm == plain.privacy.max_grad_norm
    assert recipe.strategy.name in ("fedavg", "median")


def test_adapters_beside_the_head_get_the_same_noise_in_its_logits() -> None:
    """The strategy stays; with the same momentum the rate is that of the head alone."""
    beside = parse_recipe("", ["lora.train=b", *HEAD[1:]])
    assert (beside.privacy.max_grad_norm, beside.strategy.name) == (1.0, "fedavg")
    assert beside.training.learning_rate == head_rate(beside, mean_noise(beside))
    momentum = ["strategy.name=fedavgm", "strategy.momentum=0.5"]
    alone, same = (parse_recipe("", [*HEAD, *momentum, f"lora.train={t}"]) for t in ("none", "b"))
    assert same.training.learning_rate == alone.training.learning_rate
    other = parse_recipe("", ["model.base=intfloat/multilingual-e5-small"])
    assert (other.model.normalize, other.model.center) == (True, "english")


WORDS = [*HEAD, "task.kind=token-classification", 'task.labels=["Disease"]', "model.layers=4"]


@pytest.mark.parametrize(("epsilon", "limited"), [(0.5, False), (1.0, False), (8.0, True)])
def test_a_head_that_finds_entities_gets_the_rate_that_its_recorded_searches_gave(
    utility: Any, epsilon: float, limited: bool
) -> None:
    """Of the study that was emulated: five sites with 5,432 sentences, and shared noise."""
    sizes = ["data.public_records=1086", "training.expected_batch_size=272", *SHARED]
    given = [*WORDS, *sizes, "federation.num_rounds=30", f"privacy.epsilon={epsilon}"]
    recipe = parse_recipe("", given)
    assert (recipe.privacy.max_grad_norm, recipe.strategy.name) == (0.3, "fedavgm")
    fitted = utility("token_rate")
    step = fitted.step_by(fitted.RULE, "shared", epsilon, 30, 0.25)
    assert (step == fitted.RULE.longest_step) == limited
    # Two digits of the rate, and whole batches: 5 %.
    assert recipe.training.learning_rate * 0.3 / (1 - 0.5) == pytest.approx(step, rel=0.05)


@pytest.mark.parametrize("rounds", [(30,), pytest.param((30, 120), marks=pytest.mark.nightly)])
def test_of_the_recorded_searches_the_rule_loses_less_than_a_point_and_a_half(
    utility: Any, rounds: tuple[int, ...]
) -> None:
    fitted = utility("token_rate")
    found = fitted.losses(fitted.Store(fitted.RESULTS).rows, rounds)
    assert len(found) == (24 if rounds == (30,) else 40)
    assert found[0].lost < 0.015


@pytest.mark.parametrize(
    "change",
    [
        "training.learning_rate=24.0",
        "privacy.max_grad_norm=1.0",
        "strategy.name=fedavg",
        "training.mode=local-steps",
        "lora.train=b",
        "model.base=intfloat/multilingual-e5-small",
    ],
)
def test_words_of_other_studies_keep_their_task_s_rate_and_bound(change: str) -> None:
    recipe = parse_recipe("", [*WORDS, change])
    assert (recipe.training.learning_rate, recipe.privacy.max_grad_norm) == (24.0, 1.0)
    assert recipe.strategy.name == "fedavg"


def test_adapters_beside_the_head_make_no_longer_steps_than_were_tried() -> None:
    """A head alone has no such limit: its loss bounds what a long step can do."""
    many = ["data.public_records=200000", "training.expected_batch_size=50000", *SHARED]
    beside, alone = (
        parse_recipe("", [*HEAD, *many, f"lora.train={train}", "strategy.name=fedavg"])
        for train in ("b", "none")
    )
    assert beside.training.learning_rate == LONGEST_BESIDE < alone.training.learning_rate


def test_less_noise_allows_a_larger_rate() -> None:
    rates = [
        parse_recipe("", [*HEAD, *changes]).training.learning_rate
        for changes in (["privacy.epsilon=1.0"], [], SHARED)
    ]
    assert rates == sorted(rates)
    assert rates[0] < rates[2]


def test_what_is_impossible_is_reported_as_ever() -> None:
    with pytest.raises(RecipeError, match=r"training\.expected_batch_size"):
        parse_recipe("", [*HEAD, "data.public_records=10"])


OTHER = "model.base=intfloat/multilingual-e5-small"


def test_vectors_of_another_base_get_the_form_that_the_rate_is_meant_for() -> None:
    filled = parse_recipe("", [*HEAD, OTHER])
    assert (filled.model.normalize, filled.model.center) == (True, "english")
    assert '"center":"english"' in sent_document(filled)
    assert parse_document(sent_document(filled)).digest() == filled.digest()
    # The default base's folder says it already, and its vectors have little in common.
    usual = parse_recipe("", HEAD)
    assert (usual.model.normalize, usual.model.center) == (None, None)


@pytest.mark.parametrize(
    ("change", "center"),
    [
        ('task.labels=["差评", "好评"]', "chinese"),
        ("task.prompt=评论：{text} sentiment", "english"),
        ("task.prompt=这条评论的情感：{text}", "chinese"),
        ('task.labels=["negative", "positive"]', "english"),
    ],
)
def test_the_built_in_sentences_are_in_the_language_of_labels_and_prompt(
    change: str, center: str
) -> None:
    assert parse_recipe("", [*HEAD, OTHER, change]).model.center == center


def test_a_recipe_s_own_vectors_are_kept(tmp_path: Path) -> None:
    said = ["model.normalize=false", "model.center=none"]
    for recipe in (
        parse_recipe("", [*HEAD, OTHER, *said]),
        parse_recipe('absent = ["model.center"]', [*HEAD, OTHER, said[0]]),
    ):
        assert (recipe.model.normalize, recipe.model.center) == (False, None)
        assert recipe.training.learning_rate > 1.0  # the rate is filled in all the same
        assert '"center"' not in sent_document(recipe)  # as in studies that never had one
        (tmp_path / "recipe.toml").write_text(recipe.to_toml())
        assert read_run_recipe(tmp_path / "recipe.toml").digest() == recipe.digest()
    assert parse_recipe("", [*HEAD, OTHER, "model.center=chinese"]).model.center == "chinese"
    words = parse_recipe("", [*HEAD, OTHER, "lora.head=label-words"])
    assert (words.model.normalize, words.model.center) == (True, None)


@pytest.mark.parametrize(
    "change", ["training.learning_rate=1.0", "privacy.enabled=false", "lora.train=both"]
)
def test_vectors_of_other_studies_stay_as_they_are(change: str) -> None:
    recipe = parse_recipe("", [*HEAD, OTHER, change])
    assert (recipe.model.normalize, recipe.model.center) == (None, None)


def test_a_study_of_votes_trains_no_head_and_keeps_its_vectors(tmp_path: Path) -> None:
    (tmp_path / "votes.toml").write_text(
        """
[model]
base = "intfloat/multilingual-e5-small"
[task]
labels = ["good", "bad"]
[data]
train = "train.jsonl"
sites = 2
public_records = 200
[votes]
public = "public.jsonl"
candidates = 6
"""
    )
    recipe = read_vote_study(tmp_path / "votes.toml").recipe
    assert (recipe.model.normalize, recipe.model.center) == (None, None)
