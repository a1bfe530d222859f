"""`cloister site evaluate`: scores against slow twins, intervals, the report, refusals."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloister.cli.main import run
from cloister.client.held_out_terms import fix_terms, held_out_of, terms_file
from cloister.client.site_file import EXAMPLE, read_site
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.records import read_records
from cloister.errors import DataError, RefusedError, UsageError
from cloister.export.adapter_folder import load_released
from cloister.ledger.charge import Charge
from cloister.ledger.unit_key import unit_key_file
from cloister.privacy.plan import Plan
from cloister.tasks.build import build_task
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.tasks.tally.chosen import tally_of
from cloister.tasks.tally.loss_tally import TokenLossTally
from cloister.training.evaluation import evaluate
from cloister.training.generation import reply_score
from cloister.trust.held_out.scored import score_units
from cloister.trust.held_out.writing import evaluate_site
from cloister.trust.intervals import wilson
from tests.support.ledgers import small_plan
from tests.support.models import tiny_gpt2, word_tokenizer
from tests.support.released import exported
from tests.support.studies import NOTES

LABELS = sorted(NOTES)
STUDY = "ab" * 32


def site(folder: Path, unit: str = "record", count: int = 160) -> Path:
    """A site of 160 notes, four of each person, that holds half of its persons out."""
    folder.mkdir()
    text = EXAMPLE.replace("# held_out_share = 0.1 ", "held_out_share = 0.5 ")
    text = re.sub(r"labels = .*", f"labels = {json.dumps(LABELS)}", text, count=1)
    text = text.replace('person = "patient_id"', 'person = "person"')
    text = text.replace('unit = "person"', f'unit = "{unit}"', 1)
    (folder / "site.toml").write_text(text)
    rows = [
        {
            "text": f"{NOTES[LABELS[n % 3]][n // 3 % 3]} {n}",
            "label": LABELS[n % 3],
            "person": f"p{n // 4 if n % 7 else 0}",
        }
        for n in range(count)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = read_site(folder / "site.toml")
    unit_key_file(file.ledger).write_text(f"{1:064x}\n")  # holds the same persons out in each run
    begin_ledger(file)
    fix_terms(file, 0)
    return file.path


def delivered(path: Path, finished: Path, study: str = STUDY, name: str = "clinics") -> Path:
    """Puts the finished adapter where a study delivers it."""
    folder = AgentFolder.of(read_site(path)).adapters / study
    shutil.copytree(finished / "adapter", folder)
    note = {"study": study, "name": name, "sha256": "", "claim": {}, "received": "2026"}
    (folder / "delivery.json").write_text(json.dumps(note))
    return folder


def test_scores_are_those_of_the_adapter_on_the_held_out_records(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site(tmp_path / "site")
    folder = delivered(path, finished)
    out = path.parent / "scores"
    assert run(["site", "evaluate", str(path), STUDY[:8], "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert json.loads((out / "scores.json").read_text()) == document
    for file, mode in ((out, 0o700), (out / "scores.json", 0o600), (out / "index.html", 0o600)):
        assert file.stat().st_mode & 0o777 == mode
    # A slow twin: the command of public files, on the records that the hash holds out.
    held_out = held_out_of(read_site(path))
    assert held_out is not None
    records = read_records(read_site(path)).kept_apart(held_out).records
    assert 40 < len(records) < 120
    _, workspace = load_released(folder)
    task, examples = workspace.task, workspace.encode(records)
    expected = evaluate(workspace.network, task, examples, 512)
    found = {name: one["value"] for name, one in document["scores"].items()}
    assert found == pytest.approx(dict(expected.metrics), abs=1e-6)
    accuracy = document["scores"]["accuracy"]
    ends = wilson(round(accuracy["value"] * len(records)), len(records))
    assert ends is not None
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((ends.low, ends.high))
    for one in document["scores"].values():
        assert one["low"] <= one["value"] <= one["high"]
    assert (document["study"], document["name"], document["units"]) == (
        STUDY,
        "clinics",
        len(records),
    )
    assert sum(map(sum, document["confusion"])) == len(records)
    support = [document["classes"][label]["support"]["value"] for label in LABELS]
    assert support == [sum(r.label == label for r in records) for label in LABELS]  # type: ignore[union-attr]
    page = (out / "index.html").read_text()
    assert "no ε covers them" in page
    assert "50 % of its records, never trained on)." in page
    assert all(label in page for label in LABELS)
    assert document["cautions"] == []
    capsys.readouterr()
    again = path.parent / "again"
    assert run(["site", "evaluate", str(path), "clinics", "--out", str(again)]) == 0
    printed = capsys.readouterr()
    assert re.search(r"accuracy +\d\.\d{4}  \(\d\.\d{4} to \d\.\d{4}, 95 %\)", printed.out)
    assert json.loads((again / "scores.json").read_text()) == document


def test_a_person_counts_once(tmp_path: Path, finished: Path) -> None:
    """Against a twin that scores each person alone, and takes the mean."""
    path = site(tmp_path / "site", "person")
    folder = delivered(path, finished)
    report = evaluate_site(path, str(folder), path.parent / "scores")
    held_out = held_out_of(read_site(path))
    assert held_out is not None
    records = read_records(read_site(path)).kept_apart(held_out).records
    persons = sorted({str(record.person) for record in records})
    _, workspace = load_released(folder)
    means = []
    for person in persons:
        own = workspace.encode([record for record in records if record.person == person])
        scores = evaluate(workspace.network, workspace.task, own, 512)
        means.append((scores.metrics["accuracy"], scores.metrics["loss"]))
    assert report.found.units == len(persons) < len(records)
    found = report.found.scores
    expected = np.mean(means, axis=0)
    assert (found["accuracy"].value, found["loss"].value) == pytest.approx(tuple(expected))
    assert any("Only" in one for one in report.cautions) == (len(persons) < 30)


def coverage(persons: bool, units: int, repeats: int) -> dict[str, float]:
    """Shares of repeats whose intervals hold the true score, of a classifier of three labels.

    Persons have very different numbers of records and accuracies; otherwise each unit is a record.
    """
    task = build_task(TaskConfig(max_length=16), ("a", "b", "c"), word_tokenizer())
    tally = tally_of(task)
    matrix = slice(3, 12)  # after the count, the right ones and the loss

    def drawn(count: int, rng: np.random.Generator) -> np.ndarray:
        sizes = 1 + rng.geometric(0.3, count) if persons else np.ones(count, dtype=int)
        ability = rng.beta(6, 2, count) if persons else np.full(count, 0.75)
        owner = np.repeat(np.arange(count), sizes)
        true = rng.choice(3, len(owner), p=[0.6, 0.3, 0.1])
        right = rng.random(len(owner)) < ability[owner]
        given = np.where(right, true, (true + rng.integers(1, 3, len(owner))) % 3)
        rows = np.zeros((len(owner), len(tally.names)))
        rows[:, 0], rows[:, 1] = 1, right
        rows[:, 2] = rng.exponential(np.where(right, 0.3, 2.0))
        rows[:, matrix][np.arange(len(owner)), 3 * true + given] = 1
        sums = np.zeros((count, rows.shape[1]))
        np.add.at(sums, owner, rows)
        means: np.ndarray = sums / sizes[:, None]
        return means

    truth = tally.scores(drawn(200_000, np.random.default_rng(1)).sum(axis=0))
    inside = dict.fromkeys(("accuracy", "macro_f1", "loss"), 0)
    for seed in range(repeats):
        rng = np.random.default_rng(100 + seed)
        found = score_units(drawn(units, rng), tally, rng).scores
        for name in inside:
            inside[name] += found[name].low <= float(truth[name]) <= found[name].high
    return {name: count / repeats for name, count in inside.items()}


@pytest.mark.parametrize("persons", [False, True])
def test_intervals_hold_the_true_score_about_as_often_as_they_say(persons: bool) -> None:
    # The share of 30 repeats, less three of its deviations.
    assert min(coverage(persons, 100, 30).values()) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 30)


@pytest.mark.nightly
@pytest.mark.parametrize("units", [60, 300])
@pytest.mark.parametrize("persons", [False, True])
def test_intervals_hold_the_true_accuracy_in_94_of_100_repeats(persons: bool, units: int) -> None:
    found = coverage(persons, units, 500)
    assert found["accuracy"] >= 0.94
    # Percentile intervals are too short where there are few units and the values are skewed: the
    # loss of 60 records was held in 90 of 100 repeats. Less three deviations of the count.
    assert min(found.values()) >= 0.90 - 3 * math.sqrt(0.9 * 0.1 / 500)


def test_perplexity_without_a_token_is_infinite_and_null_in_json() -> None:
    task = build_task(TaskConfig(kind="causal-lm", max_length=16), (), word_tokenizer())
    tally = tally_of(task)
    assert isinstance(tally, TokenLossTally)
    rows = np.array([[1.0, 0.0, 0.0, 0.0]] * 3)
    found = score_units(rows, tally, np.random.default_rng(0))
    assert found.scores["perplexity"].value == math.inf
    assert found.to_json()["scores"]["perplexity"]["value"] is None


def outside(path: Path) -> str:
    return str(path.parent.parent / "scores")


CASES: dict[str, tuple[Callable[[Path, Path], None], str, type[Exception], str]] = {
    "a folder outside": (lambda path, run: None, STUDY, RefusedError, "stay with the site"),
    "no such adapter": (lambda path, run: None, "other", UsageError, r"here: clinics \(abab"),
    "no share": (
        lambda path, run: (
            path.write_text(path.read_text().replace("held_out_share = 0.5 ", "# "))
            and terms_file(read_site(path).ledger).unlink()
        ),
        STUDY,
        UsageError,
        "none declared",
    ),
    "nothing held out yet": (
        lambda path, run: terms_file(read_site(path).ledger).unlink(),
        STUDY,
        UsageError,
        "nothing was held out yet",
    ),
    "another task": (
        lambda path, run: path.write_text(
            path.read_text().replace("sequence-classification", "multi-label-classification")
        ),
        STUDY,
        UsageError,
        "an adapter for sequence-classification, but",
    ),
    "two of a name": (
        lambda path, run: delivered(path, run, "cd" * 32) and None,
        "clinics",
        UsageError,
        "several adapters",
    ),
    "no record fits": (
        lambda path, run: (
            (path.parent / "records.jsonl").write_text(
                json.dumps({"text": "x", "label": "oncology"}) + "\n"
            )
            and None
        ),
        STUDY,
        DataError,
        "none of|does not fit",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_message_and_nothing_is_written(
    name: str, tmp_path: Path, finished: Path
) -> None:
    change, adapter, kind, word = CASES[name]
    path = site(tmp_path / "site", count=40)
    delivered(path, finished)
    change(path, finished)
    out = outside(path) if kind is RefusedError else path.parent / "scores"
    with pytest.raises(kind, match=word):
        evaluate_site(path, adapter, out)
    assert not Path(out).exists()


def test_a_study_that_trained_before_records_were_held_out_is_refused(
    tmp_path: Path, finished: Path
) -> None:
    path = site(tmp_path / "site", count=40)
    file = read_site(path)
    terms_file(file.ledger).unlink()
    plan: Plan = small_plan()
    ledger = begin_ledger(file)
    ledger.reserve(Charge(study=STUDY, round=1, plan=plan, request="", is_private=True))
    fix_terms(file, ledger.head.seq)
    delivered(path, finished)
    folder = delivered(path, finished, "cd" * 32, "later")
    with pytest.raises(RefusedError, match="trained here before records were held out"):
        evaluate_site(path, STUDY, path.parent / "scores")
    report = evaluate_site(path, "later", path.parent / "scores")
    assert "1 rounds were charged here before" in report.cautions[0]
    (folder / "delivery.json").unlink()
    report = evaluate_site(path, str(folder), path.parent / "more")
    assert "not known which study" in report.cautions[0]


def test_a_chat_s_replies_and_tokens_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    text = EXAMPLE.replace("# held_out_share = 0.1 ", "held_out_share = 0.5 ")
    text = re.sub(r"labels = .*", "", text, count=1)
    text = text.replace('task = "sequence-classification"', 'task = "causal-lm"', 1)
    text = text.replace('unit = "person"', 'unit = "record"', 1).replace("patient_id", "person")
    text = text.replace('tasks = ["sequence-classification"', 'tasks = ["causal-lm"')
    (folder / "site.toml").write_text(text)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"fever {n}"},
                {"role": "assistant", "content": "no fever"},
            ]
        }
        for n in range(24)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "site.toml"
    begin_ledger(read_site(path))
    fix_terms(read_site(path), 0)
    config = TaskConfig(kind="causal-lm", max_length=32)
    made = exported(tmp_path / "chat", tiny_gpt2(tmp_path / "base"), config)
    arguments = ["site", "evaluate", str(path), str(made), "--out", str(folder / "scores")]
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    held_out = held_out_of(read_site(path))
    assert held_out is not None
    records = read_records(read_site(path)).kept_apart(held_out).records
    _, workspace = load_released(made)
    expected = evaluate(workspace.network, workspace.task, workspace.encode(records), 512)
    found = {name: one["value"] for name, one in document["scores"].items()}
    replies = found.pop("rouge_l")
    assert found == pytest.approx(dict(expected.metrics), rel=1e-5)
    task = workspace.task
    assert isinstance(task, CausalChat)
    assert replies == pytest.approx(
        reply_score(workspace.network, task, workspace.tokenizer, records)
    )
    assert (document["study"], document["name"]) == ("", "chat")
    assert "not known which study" in document["cautions"][0]
    assert (document["confusion"], document["calibration"]) == (None, [])
