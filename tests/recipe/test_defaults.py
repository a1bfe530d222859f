"""A task's defaults fill a recipe and are stated in what is written and sent."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from cloister.recipe import Recipe, parse_document, parse_recipe, read_recipe, read_run_recipe
from cloister.simulation.planning import noised_parameters

TOKENS = '[task]\nkind = "token-classification"\nlabels = ["Disease"]\n'


def test_token_classification_trains_at_the_rate_that_is_known_to_work() -> None:
    recipe = parse_recipe(TOKENS)
    assert (recipe.training.learning_rate, recipe.privacy.max_grad_norm) == (24.0, 1.0)
    assert parse_recipe("", ["task.kind=token-classification"]).training.learning_rate == 24.0


def test_what_a_recipe_states_stays() -> None:
    stated = parse_recipe(TOKENS, ["training.learning_rate=1.0", "privacy.max_grad_norm=8.0"])
    assert (stated.training.learning_rate, stated.privacy.max_grad_norm) == (1.0, 8.0)
    one = parse_recipe(TOKENS, ["training.learning_rate=3.0"])
    assert (one.training.learning_rate, one.privacy.max_grad_norm) == (3.0, 1.0)


@pytest.mark.parametrize("kind", ["multi-label-classification", "recommendation"])
def test_other_tasks_keep_their_defaults(kind: str) -> None:
    recipe = parse_recipe("", [f"task.kind={kind}"])
    assert (recipe.training.learning_rate, recipe.privacy.max_grad_norm) == (1.0, 8.0)


def test_without_privacy_nothing_is_filled_in() -> None:
    recipe = parse_recipe(TOKENS, ["privacy.enabled=false"])
    assert recipe.training.learning_rate == 1.0


def test_the_digest_covers_the_value_in_force() -> None:
    recipe = parse_recipe(TOKENS)
    assert '"learning_rate":24.0' in recipe.document()
    assert '"max_grad_norm":1.0' in recipe.document()
    assert hashlib.sha256(recipe.document().encode()).hexdigest() == recipe.digest()
    assert parse_document(recipe.document()).digest() == recipe.digest()
    stated = parse_recipe(TOKENS, ["training.learning_rate=24.0", "privacy.max_grad_norm=1.0"])
    assert stated.digest() == recipe.digest()


@pytest.mark.parametrize("version", [3, 2, None])
def test_a_run_that_was_begun_before_keeps_what_it_ran_with(
    tmp_path: Path, version: int | None
) -> None:
    """A run's file states every value, so no default of today is filled in, in any format."""
    begun = parse_recipe(TOKENS, ["training.learning_rate=1.0", "privacy.max_grad_norm=8.0"])
    text = begun.to_toml()
    if version == 2:
        text = text.replace("format = 3", "format = 2").replace('"model.normalize",', "")
        text = text.replace('    "model.normalize",\n', "")
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    if version is None:
        tables = {k: v for k, v in tomllib.loads(text).items() if k not in ("format", "absent")}
        import tomli_w

        path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    found = read_run_recipe(path)
    assert (found.training.learning_rate, found.privacy.max_grad_norm) == (1.0, 8.0)


def test_a_file_that_names_no_data_says_that_others_stand_in(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('[study]\nname = "mine"\n', encoding="utf-8")
    recipe = read_recipe(path)
    assert recipe.has_stand_in
    assert any("built-in synthetic records are used" in note for note in recipe.notes)
    assert "data.train: missing" in (noised_parameters(recipe)[1] or "")
    given = read_recipe(path, ["data.train='a.jsonl'", "data.test='b.jsonl'"])
    assert not given.has_stand_in
    assert given.notes == ()
    assert "a.jsonl: no such file" in (noised_parameters(given)[1] or "")
    assert not read_recipe(None).has_stand_in
    stated = read_recipe(path, ["training.learning_rate=1.0"])
    assert stated == Recipe(study=recipe.study)
