"""The grid of simulations/utility: what is compared is at equal ε, chosen on validation alone, and
an interrupted run goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister.recipe import parse_recipe, read_recipe

ROOT = Path(__file__).parents[1]


def a_task(utility: Any, seed: int = 0) -> Any:
    """Two classes of vectors of length √8, told apart by the first coordinate."""
    methods, sets, features = utility("methods"), utility("sets"), utility("features")
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(2):
        labels = rng.integers(2, size=60)
        rows = rng.standard_normal((60, 8)).astype(np.float32)
        rows[:, 0] += 4 * labels - 2
        rows *= np.sqrt(8) / np.linalg.norm(rows, axis=1, keepdims=True)
        texts = [("good" if label else "bad") + f" number {at}" for at, label in enumerate(labels)]
        parts.append((rows.astype(np.float32), labels, texts))
    (train, train_labels, texts), (test, test_labels, others) = parts
    names = np.eye(2, 8, dtype=np.float32)
    return methods.Task(
        sets.Part(texts, train_labels),
        sets.Part(others, test_labels),
        5,
        features.Features(train, train_labels, test, test_labels),
        np.zeros(8, np.float32),
        names,
    )


@pytest.fixture
def small(utility: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A grid of few settings, whose σ costs nothing to compute."""
    rows, emulate = utility("grid_rows"), utility("emulate")
    for name, value in {"CLIPS": (1.0,), "PRODUCTS": (1.0, 3.0), "EPSILONS": (8.0,)}.items():
        monkeypatch.setattr(rows, name, value)
    monkeypatch.setattr(rows, "PUBLIC", 10)
    monkeypatch.setattr(emulate, "noise_multiplier", lambda epsilon, rounds, rate: 8 / epsilon)
    return rows


def test_the_rule_s_rate_is_what_a_recipe_gets(utility: Any) -> None:
    methods = utility("methods")
    recipe = read_recipe(ROOT / "simulations" / "linear_head.toml")
    head = methods.Head(epsilon=8.0, noise="own", of_rule=1.0)
    setting = head.setting(5, 8000)  # 5 sites of 1,600 in batches of 400
    assert setting.rate == recipe.training.learning_rate
    assert (setting.clip, setting.rounds) == (recipe.privacy.max_grad_norm, 30)
    assert setting.momentum == recipe.strategy.momentum  # type: ignore[union-attr]


def test_central_noise_is_one_site_s_and_shared_noise_a_little_more(
    utility: Any, small: Any
) -> None:
    methods, emulate = utility("methods"), utility("emulate")
    found = {
        noise: emulate.noise_of_sum(
            methods.Head(epsilon=8.0, noise=noise, product=1.0).setting(5, 60)
        )
        for noise in ("central", "shared", "own")
    }
    # σ = 1 and C = 1: one term, 5/4 of one (4 of 5 sites are honest), and 5.
    assert found == pytest.approx({"central": 1.0, "shared": 1.25**0.5, "own": 5**0.5})
    without = methods.Head(epsilon=None, product=1.0).setting(5, 60)
    assert np.isinf(without.epsilon)


def test_an_interrupted_run_goes_on_and_reports_what_validation_chose(
    utility: Any, small: Any, tmp_path: Path
) -> None:
    grid, store_of, table = utility("grid"), utility("grid_store"), utility("grid_table")
    file, opened = tmp_path / "grid.jsonl", []

    def opener(part: str) -> Any:
        opened.append(part)
        return a_task(utility)

    def run(rows: list[str]) -> Any:
        store = store_of.Store(file)
        grid.run_rows(store, {"data": "rt_polarity", "base": None}, opener, ["majority", "TF-IDF"])
        grid.run_rows(store, {"data": "rt_polarity", "base": "MiniLM"}, opener, rows)
        return store

    private = ["zero-shot", "without privacy", "central, tuned", "shared, tuned", "levers, public"]
    store = run(private)
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[:-40], encoding="utf-8")  # cut off in the last line
    again = run(private)
    assert file.read_text(encoding="utf-8") == whole
    assert [dict(row) for row in again.rows] == [dict(row) for row in store.rows]
    opened.clear()
    run(private)
    assert opened == []  # nothing is left to run

    tuned = store_of.where(store.rows, row="shared, tuned")
    means = {}
    for row in store_of.where(tuned, split="validation"):
        means.setdefault((row["of_rule"], row["product"]), []).append(row["accuracy"])
    reported = {(row["of_rule"], row["product"]) for row in store_of.where(tuned, split="test")}
    best = max(np.mean(scores) for scores in means.values() if len(scores) == 3)
    assert [np.mean(means[setting]) for setting in reported] == [best]

    partly = [row for row in again.rows if row["seed"] != 2 or row["split"] == "validation"]
    assert "| central DP, tuned | – | – | – | not run |" in table.tables(partly)
    page = table.tables(again.rows)
    assert "not run" in page  # other data sets
    assert "| most frequent class | – | – | – | – | 0." in page


def test_a_choice_looks_at_no_test_score(utility: Any) -> None:
    store, methods = utility("grid_store"), utility("methods")
    good, better = (methods.Words(inverse_penalty=value) for value in (0.1, 1.0))
    rows = [
        {"split": "validation", **store.settings(good), "seed": 0, "accuracy": 0.9},
        {"split": "validation", **store.settings(better), "seed": 0, "accuracy": 0.8},
        {"split": "test", **store.settings(better), "seed": 0, "accuracy": 1.0},
    ]
    searched = store.where(rows, split="validation")
    assert store.chosen([good, better], searched) == good
    with pytest.raises(RuntimeError, match=r"'inverse_penalty': 1\.0.*0 of 1 runs"):
        store.chosen([good, better], searched[:1])


def test_only_the_best_quarter_is_run_at_all_seeds_and_one_seed_s_luck_does_not_decide(
    utility: Any,
) -> None:
    store, methods = utility("grid_store"), utility("methods")
    heads = [methods.Head(epsilon=8.0, product=float(product)) for product in range(1, 17)]
    first = [{**store.settings(head), "seed": 0, "accuracy": head.product / 100} for head in heads]
    best = store.finalists(heads, first)
    assert best == heads[12:]  # the best four
    others = [
        {**store.settings(head), "seed": seed, "accuracy": 0.2 - head.product / 100}
        for head in best
        for seed in (1, 2)
    ]
    assert store.chosen(heads, [*first, *others]) == heads[12]  # the last one was best at seed 0


def test_a_difference_is_of_the_same_records(utility: Any, tmp_path: Path) -> None:
    store_of, table = utility("grid_store"), utility("grid_table")
    store = store_of.Store(tmp_path / "grid.jsonl")
    labels = np.zeros(10, np.int64)
    for seed, wrong in enumerate((2, 3, 4)):
        found = np.array([1] * wrong + [0] * (10 - wrong))
        store.add({"row": "a", "seed": seed}, found, labels, whole=True)
    store.add({"row": "b", "seed": 0}, np.array([1] * 5 + [0] * 5), labels, whole=True)
    found = table.difference(*(store_of.where(store.rows, row=row) for row in "ab"))
    assert found.points == pytest.approx(20.0)  # 0.7 on average against 0.5
    assert found.deviation == pytest.approx(10.0)  # of 30, 20 and 10 points
    # By record: 0, 0, 1/3, 2/3, 1 and five zeros; deviation 0.36 over √10.
    assert found.error == pytest.approx(
        100 * np.std([0, 0, 1 / 3, 2 / 3, 1, *[0] * 5], ddof=1) / 10**0.5
    )
    assert table.verdict(found, 25.0).endswith("missed by 5.0")
    assert table.difference(store.rows[:1], []) is None


def test_the_default_s_row_has_the_centre_that_a_recipe_of_this_base_gets(utility: Any) -> None:
    rows, sets = utility("grid_rows"), utility("sets")
    for base, reading in sets.BASES.items():
        recipe = parse_recipe("", ["lora.train=none", f"model.base={reading.base}"])
        for noise in ("own", "shared"):
            row = rows.by_default(noise, base)
            (method,) = rows.ROWS[row](8.0)
            assert (method.center is None) is (recipe.model.center is None)
            assert (method.noise, rows.runs_on(row, base)) == (noise, True)
