"""Agreement compares annotators' files and merges their answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from cloister.cli.main import run
from cloister.data.step_log import log_of
from cloister.errors import BadFileError, DataError, UsageError
from cloister.labelling.agreement import AgreementReport, agreement
from cloister.labelling.annotated import Annotated, read_annotated
from cloister.labelling.merge import majority, merge
from tests.support.labelled import HOSTILE, labelled, opened, records, rows_of


def annotators(folder: Path, *answers: list[Any], **asked: Any) -> list[Path]:
    source = folder / "notes.jsonl"
    if not source.exists():
        records(source, [f"text {n}" for n in range(len(answers[0]))])
    return [
        labelled(source, folder / f"{'abcdef'[at]}.jsonl", given, **asked)
        for at, given in enumerate(answers)
    ]


def value(report: AgreementReport, name: str, label: str | None = None) -> float | None:
    (found,) = (f for f in report.figures if (f.name, f.label) == (name, label))
    return found.value


def test_two_annotators_have_cohen_s_kappa_overall_and_by_label(tmp_path: Path) -> None:
    first = ["yes", "no", "yes", "maybe", "no", "yes", "maybe", "no"]
    second = ["yes", "no", "no", "maybe", "no", "yes", "yes", "no"]
    files = annotators(tmp_path, first, second, labels=("yes", "no", "maybe"))
    report = agreement(read_annotated(files))
    assert report.annotators == ("a", "b")
    assert (report.records, report.by_all, report.unanimous) == (8, 8, 6)
    assert value(report, "raw") == pytest.approx(6 / 8)
    assert value(report, "Cohen's kappa") == pytest.approx(cohen_kappa_score(first, second))
    for label in ("yes", "no", "maybe"):
        ours = [name == label for name in first], [name == label for name in second]
        assert value(report, "Cohen's kappa", label) == pytest.approx(cohen_kappa_score(*ours))


@pytest.mark.parametrize("column", ["cloister_row", "cloister_annotator", "cloister_answers"])
def test_a_column_of_the_page_s_own_is_no_answer(tmp_path: Path, column: str) -> None:
    with pytest.raises(UsageError, match="identifies the record or the annotator"):
        read_annotated(annotators(tmp_path, ["yes", "no"], ["no", "no"]), column)


def test_intervals_hold_what_resampling_by_hand_gives(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    first = generator.choice(["yes", "no"], 60).tolist()
    second = [
        a if keep else "yes" for a, keep in zip(first, generator.random(60) < 0.7, strict=True)
    ]
    report = agreement(read_annotated(annotators(tmp_path, first, second)), seed=1)
    figure = next(f for f in report.figures if f.name == "Cohen's kappa" and f.label is None)
    drawn = generator.integers(0, 60, (1000, 60))
    ones, twos = np.array(first)[drawn] == "yes", np.array(second)[drawn] == "yes"
    one, two = ones.mean(axis=1), twos.mean(axis=1)
    chance = one * two + (1 - one) * (1 - two)
    byhand = ((ones == twos).mean(axis=1) - chance) / (1 - chance)
    # Two bootstraps of 1,000: a 2.5 % quantile of a spread of 0.1 is known to about 0.1 · 0.085
    # each (√(0.025 · 0.975 / 1000) over the normal density there, 0.058); six times that.
    assert figure.low == pytest.approx(np.quantile(byhand, 0.025), abs=0.05)
    assert figure.high == pytest.approx(np.quantile(byhand, 0.975), abs=0.05)
    again = agreement(read_annotated([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]), seed=1)
    assert again == report


def test_three_annotators_with_gaps_have_fleiss_and_alpha(tmp_path: Path) -> None:
    files = annotators(
        tmp_path,
        ["yes", "no", "yes", "no", None],
        ["yes", "no", "no", None, None],
        ["yes", "yes", "no", "no", "yes"],
    )
    report = agreement(read_annotated(files))
    assert (report.records, report.by_all) == (4, 3)  # one answer alone agrees with nobody
    # Fleiss over the three records that all answered: P̄ = (1 + 1/3 + 1/3)/3, shares 5/9 and 4/9.
    chance = (5 / 9) ** 2 + (4 / 9) ** 2
    assert value(report, "Fleiss' kappa") == pytest.approx((5 / 9 - chance) / (1 - chance))
    assert value(report, "Krippendorff's alpha") is not None
    merged = merge(read_annotated(files))
    assert list(merged.answers.values()) == ["yes", "no", "no", "no", "yes"]
    assert merged.disputed == (2, 3)


def test_scores_entities_and_several_labels_have_their_own(tmp_path: Path) -> None:
    for name, asked, answers in (
        ("score", {"kind": "score", "labels": None}, ([1, 2, 3], [1, 3, 3])),
        ("several", {"kind": "several"}, ([["yes"], [], ["no"]], [["yes", "no"], [], ["no"]])),
        ("entities", {"kind": "entities"}, ([["O", "B-yes"]] * 3, [["O", "B-yes"], ["O", "O"]])),
    ):
        folder = tmp_path / name
        folder.mkdir()
        report = agreement(read_annotated(annotators(folder, *answers, **asked)))
        if name == "score":
            assert {f.name for f in report.figures} == {"raw", "Krippendorff's alpha"}
            assert value(report, "raw") == pytest.approx(2 / 3)
        if name == "several":
            assert value(report, "raw") == pytest.approx(2 / 3)  # sets are equal or not
            assert value(report, "raw", "yes") == 1
            assert value(report, "raw", "no") == pytest.approx(2 / 3)
        if name == "entities":
            assert (report.records, report.unanimous) == (2, 1)
            assert value(report, "raw") == pytest.approx(3 / 4)  # words


def test_where_chance_explains_all_kappa_is_not_defined(tmp_path: Path) -> None:
    report = agreement(read_annotated(annotators(tmp_path, ["yes"] * 4, ["yes"] * 4)))
    assert value(report, "raw") == 1
    assert value(report, "Cohen's kappa") is None
    assert value(report, "Krippendorff's alpha") is None


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("one", ["a", "a", "b"], "a"),
        ("one", ["a", "b"], None),
        ("one", ["a", "b", "c"], None),
        ("score", [1.0, 2.0, 5.0], 2.0),
        ("several", [("a", "b"), ("a",), ("b", "a")], ("a", "b")),
        ("several", [("a",), ()], None),
        ("entities", [("O", "B-x"), ("O", "B-x"), ("B-x", "O")], ("O", "B-x")),
        ("entities", [("O", "B-x"), ("O", "O")], None),
    ],
)
def test_the_majority_is_more_than_half(kind: Any, given: list[Any], expected: Any) -> None:
    assert majority(given, kind) == expected


def test_the_command_merges_and_what_is_disputed_is_decided_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records(tmp_path / "notes.jsonl", [HOSTILE, "two", "three"])
    files = [
        *annotators(tmp_path, ["yes", "no", "yes"], ["yes", "yes", "yes"]),
    ]
    out, disputed = tmp_path / "merged.jsonl", tmp_path / "disputed.jsonl"
    names = [str(file) for file in files]
    command = ["data", "agreement", *names, "--out", str(out), "--disputed", str(disputed)]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["written"] == {str(out): 2, str(disputed): 1}
    assert [(row["cloister_row"], row["label"]) for row in rows_of(out)] == [(1, "yes"), (3, "yes")]
    assert rows_of(out)[0]["text"] == HOSTILE
    (open_record,) = rows_of(disputed)
    assert open_record["cloister_answers"] == {"a": "no", "b": "yes"}
    assert "label" not in open_record
    log = json.loads(log_of(out).read_text())
    assert log["steps"][-1]["command"] == "agreement"
    assert run([*command[:-2]]) == 2  # --out is there

    # Somebody decides on the page, and the record is the one that it was.
    decided = tmp_path / "decided.jsonl"
    with opened(disputed, decided, labels=("yes", "no")) as (session, _):
        session.answer(0, "no")
    assert "cloister_answers" not in rows_of(decided)[0]
    final = tmp_path / "final.csv"
    command = ["data", "agreement", *names, "--decided", str(decided), "--out", str(final)]
    assert run(command) == 0
    printed = capsys.readouterr().out
    assert "0 disputed" in printed
    assert "for this institution only" in printed
    assert final.read_text().splitlines()[2].endswith("no")


def test_files_that_cannot_be_compared_are_refused_with_the_record(tmp_path: Path) -> None:
    first, second = annotators(tmp_path, ["yes", "no"], ["yes", "no"])
    with pytest.raises(UsageError, match="given twice"):
        read_annotated([first, first])
    with pytest.raises(UsageError, match="one file given"):
        agreement(read_annotated([first]))
    with pytest.raises(BadFileError, match="no such file"):
        read_annotated([first, tmp_path / "none.jsonl"])
    rows = rows_of(second)

    def changed(**cells: Any) -> Path:
        path = tmp_path / "changed.jsonl"
        path.write_text(json.dumps(rows[0] | cells) + "\n")
        return path

    for cells, words in (
        ({"text": "another"}, "record 1: its text differs"),
        ({"label": None}, "row 1: no answer in 'label'"),
        ({"cloister_row": "x"}, "row 1: no cloister_row"),
    ):
        with pytest.raises(DataError, match=words):
            read_annotated([first, changed(**cells)])
    with pytest.raises(UsageError, match="no record has an answer in two"):
        agreement(read_annotated([first, changed(cloister_row=7)]))
    with pytest.raises(UsageError, match=r"no column of answers \(label, labels"):
        read_annotated([tmp_path / "notes.jsonl", first])


def test_every_label_that_somebody_gave_has_its_figures(tmp_path: Path) -> None:
    found = read_annotated(annotators(tmp_path, ["yes", "no"], ["no", "no"]))
    assert isinstance(found, Annotated)
    assert found.labels == ("no", "yes")
