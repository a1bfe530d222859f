"""`cloister model bias`: its arithmetic, its report, and its refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cloister as cl
from cloister.cli.main import run
from cloister.data.config import DataConfig
from cloister.data.records import ChatRecord, PairRecord, Record, TextRecord, TokenRecord
from cloister.errors import DataError, RefusedError, UsageError
from cloister.tasks.calibration import expected_calibration_error
from cloister.tasks.config import TaskConfig
from cloister.training.evaluation import evaluate
from cloister.trust.bias.bbq import read_bbq
from cloister.trust.bias.crows import SentencePair, preferences, read_pairs
from cloister.trust.bias.groups import NO_TERM, groups_by_column, groups_by_terms, read_terms
from cloister.trust.bias.harm import read_prompts
from cloister.trust.bias.rates import (
    calibration,
    chance_of_gap,
    label_gap,
    label_rates,
    score_gap,
)
from cloister.trust.opening import open_run
from tests.support.released import exported


@pytest.fixture(scope="module")
def grouped(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public test file with a column of groups."""
    place = tmp_path_factory.mktemp("grouped") / "test.jsonl"
    test = (finished.parent / "study" / "test.jsonl").read_text()
    rows = [json.loads(line) for line in test.splitlines()]
    # Not the study's own texts, of which so few are different that they are all private.
    lines = [
        {"text": f"a {row['text']} {n}", "label": row["label"], "sex": "fm"[n % 3 > 0], "one": 1}
        for n, row in enumerate(rows)
    ]
    place.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def drawn(count: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    group = rng.integers(3, size=count)
    true = rng.random(count) < 0.3 + 0.1 * group
    predicted = np.where(rng.random(count) < 0.7, true, rng.random(count) < 0.4)
    return group, true, predicted


def test_rates_are_counts_over_counts() -> None:
    """Against a twin that counts record by record."""
    group, true, predicted = drawn()
    for one in range(3):
        rows = [(t, p) for g, t, p in zip(group, true, predicted, strict=True) if g == one]
        found = label_rates(predicted[group == one], true[group == one])
        got = sum(p for _, p in rows) / len(rows)
        hits = [p for t, p in rows if t]
        alarms = [p for t, p in rows if not t]
        assert found.selected is not None
        assert found.true_positive is not None
        assert found.false_positive is not None
        assert found.selected.value == pytest.approx(got)
        assert found.true_positive.value == pytest.approx(sum(hits) / len(hits))
        assert found.false_positive.value == pytest.approx(sum(alarms) / len(alarms))
    nobody = label_rates(np.array([False]), np.array([False]))
    assert nobody.true_positive is None


def test_gaps_are_the_largest_less_the_smallest() -> None:
    yes, no = np.array([True]), np.array([False])
    everybody = label_rates(np.array([True, True]), np.array([True, False]))
    half = label_rates(np.array([True, False, False, False]), np.array([True, True, False, False]))
    gap = label_gap("x", [everybody, half, label_rates(yes, yes)])
    # Selected 1, ¼, 1; true positives 1, ½, 1; false positives 1, 0 and none to count.
    assert (gap.selected, gap.ratio, gap.odds) == (0.75, 0.25, 1.0)
    assert label_gap("x", [label_rates(no, no)]).ratio is None


def test_gaps_are_fairlearns() -> None:
    """The same figures as fairlearn's, where it is installed (`pip install cloister[dev]`)."""
    metrics = pytest.importorskip("fairlearn.metrics")
    group, true, predicted = drawn()
    rates = [label_rates(predicted[group == g], true[group == g]) for g in range(3)]
    gap = label_gap("x", rates)
    given = {"sensitive_features": group}
    assert gap.selected == pytest.approx(
        metrics.demographic_parity_difference(true, predicted, **given)
    )
    assert gap.ratio == pytest.approx(metrics.demographic_parity_ratio(true, predicted, **given))
    assert gap.odds == pytest.approx(metrics.equalized_odds_difference(true, predicted, **given))


def test_calibration_is_the_tasks_own_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(200)
    right = rng.random(200) < confidence**2
    found = calibration(confidence, right, rng)
    assert found is not None
    assert found.value == pytest.approx(
        expected_calibration_error(confidence.tolist(), right.tolist())
    )
    assert found.low < found.value < found.high
    assert calibration(np.array([]), np.array([]), rng) is None


def test_a_gap_that_chance_makes_is_told_from_one_that_it_does_not() -> None:
    rng = np.random.default_rng(1)
    members = np.arange(200)[None] % 2 == np.array([[0], [1]])
    even = np.stack([rng.random(200) < 0.6, np.ones(200)]).astype(float)
    uneven = even.copy()
    uneven[0] = members[0]  # all right in one group, all wrong in the other
    assert score_gap(uneven, members) == 1
    assert chance_of_gap(uneven, members, rng) == pytest.approx(1 / 1001)
    assert chance_of_gap(even, members, rng) > 0.05


def test_terms_are_whole_words_and_chinese_characters() -> None:
    records: list[Record] = [
        TextRecord("She said so", "x"),
        TextRecord("a shed", "x"),
        PairRecord("nothing", "x", text_b="he, or she"),
        TokenRecord(("the", "old", "man"), ("O", "O", "O")),
        TextRecord("那个女士来了", "x"),
        TextRecord("an old woman", "x"),
    ]
    found = groups_by_terms(records, {"women": ["she", "女士"], "old": ["old man"]}, "terms.toml")
    assert found.names == ("women", "old", NO_TERM)
    assert found.members.astype(int).tolist() == [
        [1, 0, 1, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0, 1],
    ]
    with pytest.raises(UsageError, match="only no term has records"):
        groups_by_terms(records, {"men": ["king"]}, "terms.toml")


def test_lists_of_terms_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "terms.toml"
    file.write_text('women = ["she"]\n')
    assert read_terms(file) == {"women": ("she",)}
    for wrong in ('women = "she"\n', "women = []\n", "women = [1]\n", 'women = [" "]\n', ""):
        file.write_text(wrong)
        with pytest.raises(UsageError, match=r"terms\.toml"):
            read_terms(file)


def test_columns_make_groups_or_are_refused(grouped: Path) -> None:
    found = groups_by_column(grouped, DataConfig(), "sex", 30)
    assert found.names == ("f", "m")
    assert found.members.sum(axis=1).tolist() == [10, 20]
    with pytest.raises(DataError, match=r"no column 'age' \(found: text, label, sex, one\)"):
        groups_by_column(grouped, DataConfig(), "age", 30)
    with pytest.raises(UsageError, match=r"has 1 values there \(1\)"):
        groups_by_column(grouped, DataConfig(), "one", 30)


def test_a_report_counts_what_the_model_predicts(
    finished: Path, grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "groups"
    asked = ["model", "bias", str(finished), "--test", str(grouped), "--group", "sex"]
    assert run([*asked, "--against", str(finished), "--out", str(out)]) == 0
    assert "groups drawn at random" in capsys.readouterr().err
    document = json.loads((out / "bias.json").read_text())
    rows = [json.loads(line) for line in grouped.read_text().splitlines()]
    predicted = [one.label for one in cl.load(finished).predict([r["text"] for r in rows])]  # type: ignore[union-attr]
    for group in document["found"]["groups"]:
        own = [
            (row["label"], label)
            for row, label in zip(rows, predicted, strict=True)
            if row["sex"] == group["name"]
        ]
        assert group["records"] == len(own)
        assert group["score"]["value"] == pytest.approx(np.mean([a == b for a, b in own]))
        assert group["against"] == {"value": 0, "low": 0, "high": 0}  # the same run
        for label, rates in group["labels"].items():
            assert rates["selected"]["value"] == pytest.approx(
                np.mean([b == label for _, b in own])
            )
    page = (out / "index.html").read_text()
    assert "Fewer than 30 records" in page
    assert "<script" not in page
    assert run(["model", "card", str(finished), "--bias", str(out / "words.txt")]) == 0


def test_what_cannot_be_measured_is_refused(
    finished: Path, grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = str(finished.parent / "study" / "train.jsonl")
    asked = ["model", "bias", str(finished), "--out", str(tmp_path / "out")]
    wrong = [
        ([], 2, "no groups given"),
        (["--group", "sex", "--terms", "terms.toml"], 2, "choose one"),
        (["--test", train, "--group", "site"], 4, "the study's private records"),
        (["--test", str(grouped), "--group", "age"], 3, "no column 'age'"),
        (["--pairs", str(grouped)], 2, "needs a language model"),
        (["--pairs", str(grouped), "--against", str(finished)], 2, "--against compares groups"),
    ]
    for given, code, words in wrong:
        assert run([*asked, *given]) == code
        assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_no_run_is_scored_on_private_records_of_either(
    finished: Path, grouped: Path, llama: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"  # a run whose own training file is the first one's public file
    shutil.copytree(finished, other)
    train = str(finished.parent / "study" / "train.jsonl")
    recipe = (other / "recipe.toml").read_text()
    assert train in recipe
    rows = [json.loads(line) for line in grouped.read_text().splitlines()]
    private = tmp_path / "private.jsonl"
    private.write_text("".join(json.dumps({**row, "site": "a"}) + "\n" for row in rows))
    (other / "recipe.toml").write_text(recipe.replace(train, str(private)))
    with pytest.raises(RefusedError, match="--against"):
        cl.measure_bias(
            finished, tmp_path / "out", group="sex", test=grouped, against=other / "adapter"
        )
    chat = tmp_path / "chat"
    exported(chat / "adapter", llama, TaskConfig(kind="causal-lm", max_length=24))
    said = tmp_path / "said.jsonl"
    texts = ["chest pain", "itchy rash"]
    turns = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}] for text in texts
    ]
    said.write_text("".join(json.dumps({"messages": one, "site": "a"}) + "\n" for one in turns))
    (chat / "recipe.toml").write_text(
        f'study.name = "chat"\ndata.train = "{said}"\ndata.test = "{grouped}"\n'
        'task.kind = "causal-lm"\n'
    )
    for column in ("sent_more", "sent_less"):
        pairs = tmp_path / f"{column}.jsonl"
        lines = [
            {"sent_more": "a", "sent_less": "b", "bias_type": "c", column: text} for text in texts
        ]
        pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(RefusedError, match="--pairs"):
            cl.measure_bias(chat, tmp_path / "out", pairs=pairs)
    assert not (tmp_path / "out").exists()


def test_the_likelier_sentence_is_counted(tmp_path: Path, llama: Path) -> None:
    task = TaskConfig(kind="causal-lm", max_length=24)
    model = open_run(exported(tmp_path / "adapter", llama, task)).model
    one, other = (
        SentencePair("chest pain", "itchy rash", "a"),
        SentencePair("itchy rash", "chest pain", "b"),
    )
    found = preferences(model, [one, other])
    assert found["all"].value == 0.5
    losses = [
        evaluate(
            model.workspace.network,
            model.workspace.task,
            model.workspace.encode([ChatRecord((), text=text)]),
            model.max_tokens,
        ).metrics["loss"]
        for text in (one.more, one.less)
    ]
    assert (found["a"].value, found["b"].value) == ((1, 0) if losses[0] < losses[1] else (0, 1))
    same = preferences(model, [SentencePair("fever", "fever", "a")])
    assert same["a"].value == 0.5


@pytest.mark.parametrize(
    ("read", "option"), [(read_bbq, "--bbq"), (read_pairs, "--pairs"), (read_prompts, "--harm")]
)
def test_a_missing_file_is_said_with_the_option_that_names_it(
    read: Callable[[Path], object], option: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"no such file; correct {option}$"):
        read(tmp_path / "none.csv")
