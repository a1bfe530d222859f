"""Entities and simulated LoRA of simulations/utility: sentences are clipped as the task has them,
settings are chosen on validation, and ratios say what they say."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score

from cloister.tasks.losses import mean_within_record, token_losses
from cloister.tasks.task import IGNORE

TAGS = ("O", "B-Disease", "I-Disease")


def some_sentences(
    utility: Any, seed: int, count: int = 12, width: int = 5, unread: int | None = 1
) -> Any:
    """Sentences whose entities the first two coordinates tell; one word of each is not read."""
    rng = np.random.default_rng(seed)
    words, tags, states, places, ends = [], [], [], [], []
    for _ in range(count):
        labels = rng.integers(3, size=int(rng.integers(3, 7)))
        words.append([f"w{label}" for label in labels])
        tags.append([TAGS[label] for label in labels])
        read = [at for at in range(len(labels)) if at != unread]
        rows = rng.standard_normal((len(read), width)).astype(np.float32)
        for row, at in zip(rows, read, strict=True):
            row[labels[at] % 2] += 3.0 * (labels[at] > 0)
        states.append(rows)
        places += read
        ends.append(len(places))
    return utility("words").Sentences(
        words, tags, np.concatenate(states), np.array(places), np.array(ends)
    )


def test_a_sentence_s_gradient_is_that_of_the_task_s_loss(utility: Any) -> None:
    found, tagger = some_sentences(utility, 0), utility("tagger")
    rng = np.random.default_rng(1)
    rows = utility("emulate").with_bias(found.states)
    head = rng.standard_normal((3, rows.shape[1])).astype(np.float32)
    weights = np.where(found.labels == 0, 1.0, 2.0)
    ours = tagger.sentence_gradients(head, rows, found.labels, weights, found.counts)
    for at, (end, count) in enumerate(zip(found.ends, found.counts, strict=True)):
        own = slice(end - count, end)
        weight = torch.tensor(head, requires_grad=True)
        # One more token than words: what is not read has no loss, and does not count.
        logits = torch.cat([torch.tensor(rows[own]), torch.zeros(1, rows.shape[1])]) @ weight.T
        target = torch.tensor([[*found.labels[own].tolist(), IGNORE]])
        losses = token_losses(logits[None], target, torch.tensor([1.0, 2.0, 2.0]))
        mean_within_record(losses, target).sum().backward()
        assert weight.grad is not None
        assert ours[at] == pytest.approx(weight.grad.numpy(), abs=1e-5)


def test_no_sentence_moves_the_head_further_than_the_clip_allows(utility: Any) -> None:
    tagger, emulate = utility("tagger"), utility("emulate")
    found = some_sentences(utility, 2)
    setting = emulate.Setting(
        epsilon=float("inf"), clip=0.01, rate=1.0, rounds=1, sample_rate=1.0, momentum=0.0
    )
    whole = tagger.trained(found, setting, 1.0, 0)
    fewer = found._replace(
        words=found.words[:-1],
        tags=found.tags[:-1],
        states=found.states[: found.ends[-2]],
        places=found.places[: found.ends[-2]],
        ends=found.ends[:-1],
    )
    without = tagger.trained(fewer, setting, 1.0, 0)
    # Sums of clipped gradients, over the expected batches of 12 and 11 sentences.
    moved = np.linalg.norm(12 * whole - 11 * without)
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_f1_is_seqeval_s_and_a_word_that_is_not_read_is_no_entity(utility: Any) -> None:
    words = utility("words")
    found = some_sentences(utility, 3, count=40)
    tagged = found.tagged(found.labels)
    assert all(tags[1] == "O" for tags in tagged)  # though some are entities in truth
    counts = words.entity_counts(tagged, found.tags)
    assert words.f1(counts) == pytest.approx(f1_score(found.tags, tagged))
    assert 0 < words.f1(counts) < 1


@pytest.fixture
def few(utility: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Entities of few settings, whose σ costs nothing to compute."""
    entities, emulate = utility("entities"), utility("emulate")
    for name, value in {
        "CLIPS": (1.0,),
        "PRODUCTS": (1.0, 3.0, 10.0),
        "LONG": ((4, 1.0),),
        "PENALTIES": (0.1,),
    }.items():
        monkeypatch.setattr(entities, name, value)
    monkeypatch.setattr(emulate, "noise_multiplier", lambda epsilon, rounds, rate: 0.01)
    return entities


def test_an_interrupted_run_of_entities_goes_on(utility: Any, few: Any, tmp_path: Path) -> None:
    file, rows = tmp_path / "entities.jsonl", ["without privacy", "shared, tuned", "levers"]
    store_of, tagger = utility("grid_store"), utility("tagger")

    def run() -> Any:
        store = store_of.Store(file)

        def opener(unread: int | None) -> Any:
            def opened(part: str) -> Any:
                seed = 5 if part == "test" else 4
                train, scored = (some_sentences(utility, at, unread=unread) for at in (0, seed))
                return tagger.Tagging(train, scored, 5)

            return opened

        few.run_rows(store, {"data": few.DATA, "base": None}, opener(None), ["no entity", "words"])
        few.run_rows(store, {"data": few.DATA, "base": "MiniLM"}, opener(1), rows)
        return store

    store = run()
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[:-40], encoding="utf-8")  # cut off in the last line
    run()
    assert file.read_text(encoding="utf-8") == whole
    page = utility("ratio_tables").entity_tables(store.rows)
    assert "| no entity at all | – | – | – | – | 0.000 |" in page
    assert "| own noise, tuned | not run | not run | not run | not run | – |" in page
    private = store_of.where(store.rows, row="shared, tuned", split="test", epsilon=8.0)
    assert len(private) == 3
    assert f"| {np.mean([row['f1'] for row in private]):.3f} ± " in page


def counts_of(both: list[int], found: list[int], true: list[int]) -> dict[str, Any]:
    """What a row keeps of sentences with so many entities."""
    counts = np.array([both, found, true], np.uint8).T
    packed = base64.b64encode(zlib.compress(counts.tobytes())).decode()
    return {"f1": 2 * sum(both) / (sum(found) + sum(true)), "counts": packed}


def test_a_ratio_s_error_is_that_of_leaving_sentences_out(utility: Any) -> None:
    tables = utility("ratio_tables")
    rng = np.random.default_rng(0)
    true = rng.integers(1, 4, size=200)
    sides = []
    for seed, share in ((0, 0.6), (1, 0.8)):
        both = rng.binomial(true, share)
        found = both + rng.integers(0, 2, size=200)
        sides.append({"seed": seed, **counts_of(both.tolist(), found.tolist(), true.tolist())})
    found = tables.ratio(sides[:1], sides[1:])
    assert found.value == pytest.approx(sides[0]["f1"] / sides[1]["f1"])

    def without(row: Any, at: int) -> float:
        packed = np.frombuffer(zlib.decompress(base64.b64decode(row["counts"])), np.uint8)
        both, ours, theirs = np.delete(packed.reshape(-1, 3), at, axis=0).sum(axis=0).tolist()
        return 2 * both / (ours + theirs)

    left = [without(sides[0], at) / without(sides[1], at) for at in range(200)]
    jackknife = (199 * np.var(left)) ** 0.5
    assert found.error == pytest.approx(jackknife, rel=0.02)
    same = tables.ratio(sides[:1], sides[:1])
    assert (same.value, same.error) == (1.0, 0.0)
    assert tables.verdict(same._replace(value=0.8), 0.85, higher=True).endswith("missed by 0.050")
    assert tables.verdict(same._replace(value=1.09), 1.10, higher=False).endswith("met")
    assert tables.ratio([], sides) is None


def test_lora_s_rate_is_chosen_on_validation_and_runs_are_kept(
    utility: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lora, store_of = utility("lora"), utility("grid_store")
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.jsonl").write_text("{}\n", encoding="utf-8")
    ran = []

    def outcomes(recipe: Any, metric: str) -> dict[str, dict[str, float]]:
        ran.append(recipe)
        rate = recipe.training.learning_rate
        others = {"untrained": 20.0, "minutes": 0.1}
        # On test the other rate would have been better.
        return {
            "validation": {metric: 5.0 + abs(rate - 0.75), **others},
            "test": {metric: 5.0 + abs(rate - 1.5), **others},
        }

    monkeypatch.setattr(lora, "outcomes", outcomes)
    study = lora.STUDIES["chat"]._replace(
        data=tmp_path.name,
        rates={("shared noise", 8.0): (1.5, 0.75), ("without privacy", None): (1.5,)},
        tested=None,
    )
    files = lora.splits(study, tmp_path.parent, tmp_path)
    store = store_of.Store(tmp_path / "lora.jsonl")
    for seed in range(3):
        lora.run_case(store, study, ("shared noise", 8.0), files, seed)
    # At the first seed both rates are run, each once for validation and test, then the better one.
    rates = [(recipe.study.seed, recipe.training.learning_rate) for recipe in ran]
    assert rates == [(0, 1.5), (0, 0.75), (1, 0.75), (2, 0.75)]
    assert {recipe.privacy.noise for recipe in ran} == {"shared"}
    assert {recipe.privacy.target_epsilon for recipe in ran} == {8.0}
    count = len(ran)
    again = store_of.Store(tmp_path / "lora.jsonl")
    lora.run_case(again, study, ("shared noise", 8.0), files, 2)
    assert len(ran) == count  # nothing is left to run
    lora.run_case(store, study, ("without privacy", None), files, 0)
    assert not ran[-1].privacy.enabled
    assert ran[-1].training.mode == "gradient-rounds"
    for name in ("movie reviews", "bank intents"):  # whose runs without privacy use AdamW
        plain = lora.methods(lora.STUDIES[name], ("without privacy", None))[0]
        recipe = plain.recipe(lora.STUDIES[name], [f"data.train={tmp_path / 'train.jsonl'}"], 0)
        assert (recipe.training.optimizer, recipe.training.mode) == ("adamw", "local-steps")
    page = utility("ratio_tables").lora_tables(store.rows)
    assert "| before training | – | – | 20.000 | – |" in page
    assert "| shared noise | not run | 5.750 ± 0.000 | – | 1.150 ± 0.000: missed by 0.050 |" in page
    assert "| own noise | not run | not run | – | not run |" in page


def test_a_set_without_a_validation_file_is_split_as_in_the_grid_and_lines_keep_their_site(
    utility: Any, tmp_path: Path
) -> None:
    lora, sets = utility("lora"), utility("sets")
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "site": f"s{n % 3}"} for n in range(30)]
    folder = tmp_path / "product_sentiment"
    folder.mkdir()
    for part in ("train", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    files = lora.splits(lora.STUDIES["product sentiment"], tmp_path, tmp_path / "cache")
    split = sets.split(tmp_path, "product_sentiment")
    for field, part in zip(files["validation"], (split.fit, split.valid), strict=True):
        text = Path(field.partition("=")[2]).read_text("utf-8")
        found = [json.loads(line) for line in text.splitlines()]
        assert [row["text"] for row in found] == part.texts
        assert all(row in rows for row in found)
    assert files["test"] == [f"data.{part}={folder}/{part}.jsonl" for part in ("train", "test")]


def test_the_raw_rows_in_the_project_print_as_tables(utility: Any) -> None:
    entities, lora, store_of = utility("entities"), utility("lora"), utility("grid_store")
    tables = utility("ratio_tables")
    pages = {
        file.name: make([json.loads(line) for line in file.read_text("utf-8").splitlines()])
        for file, make in (
            (entities.RESULTS, tables.entity_tables),
            (lora.RESULTS, tables.lora_tables),
        )
    }
    page = (store_of.Path(__file__).parents[1] / "docs" / "utility-tables.md").read_text("utf-8")
    for name, text in pages.items():
        for line in text.splitlines():
            if line.startswith("| "):
                assert line in page, name
