"""`cloister model explain`: its report, and the folders where it may be written."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import cloister as cl
from cloister.cli.main import run
from cloister.client.site_file import EXAMPLE
from cloister.data.records import ChatRecord, Message, PairRecord, Record, TokenRecord
from cloister.errors import RefusedError, UsageError
from cloister.protocol.delivery import NOTE
from cloister.report_page import heat
from cloister.serving.model import load
from cloister.serving.predictions import Classified
from cloister.tasks.config import TaskConfig
from cloister.trust.explain.edits import (
    DELETION,
    NEGATION,
    NUMBER,
    SEVERAL,
    probe_edits,
    with_other_numbers,
)
from cloister.trust.negation import with_negation, without_negation
from cloister.trust.places import inputs_of, plain_input
from tests.support.released import exported

TEXT = "chest pain and mild fever"
QUICK = ["occlusion", "edits"]


def test_a_report_says_what_the_model_said(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["model", "explain", str(finished), "--text", f"{TEXT} <b>", "--text", "itchy fever"]
    assert run([*asked, "--out", str(tmp_path / "why")]) == 0
    shown = capsys.readouterr()
    assert shown.out.rstrip().endswith("why/index.html")
    assert "integrated-gradients" in shown.out
    document = json.loads((tmp_path / "why" / "explanations.json").read_text())
    labels = [one.label for one in load(finished).predict([TEXT + " <b>", "itchy fever"])]  # type: ignore[union-attr]
    assert [one["said"] for one in document["explanations"]] == labels
    for one in document["explanations"]:
        (answer,) = one["answers"]
        assert set(answer["methods"]) == {"integrated-gradients", "occlusion", "attention-rollout"}
        gradients = answer["methods"]["integrated-gradients"]
        difference = answer["figure"] - answer["figure_of_blank"]
        assert sum(gradients["values"]) - difference == pytest.approx(
            gradients["completeness_gap"], abs=1e-4
        )
    page = (tmp_path / "why" / "index.html").read_text()
    assert "&lt;" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert (tmp_path / "why" / "index.html").stat().st_mode & 0o077 == 0


def test_the_same_seed_gives_the_same_report(finished: Path, tmp_path: Path) -> None:
    documents = [
        cl.explain_model(finished, tmp_path / str(n), texts=[TEXT], methods=QUICK, seed=seed)
        for n, seed in enumerate((3, 3, 4))
    ]
    assert documents[0].document == documents[1].document
    drawn = [one.document["methods"][0]["random_deletion"] for one in documents]
    assert drawn[0] != drawn[2]


def test_private_records_are_explained_below_their_own_folder_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = finished.parent / "study" / "train.jsonl"
    copy = tmp_path / "unlabelled.jsonl"  # the same texts under another name, without labels
    texts = [json.loads(line)["text"] for line in train.read_text().splitlines()][:3]
    copy.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    private_text = ["--text", texts[0]]
    for given in (["--data", str(train)], ["--data", str(copy)], private_text):
        asked = ["model", "explain", str(finished), *given, "--most", "1"]
        assert run([*asked, "--out", str(tmp_path / "away")]) == 4
        assert "the report must stay with the records" in capsys.readouterr().err
    link = finished.parent / "study" / "link"
    link.symlink_to(tmp_path)
    asked = ["model", "explain", str(finished), *private_text, "--method", "occlusion"]
    assert run([*asked, "--out", str(link / "away")]) == 4
    capsys.readouterr()
    assert not (tmp_path / "away").exists()
    inside = finished.parent / "study" / "why"
    assert run([*asked, "--out", str(inside)]) == 0
    assert "it stays where these records are" in capsys.readouterr().err
    assert "the study&#x27;s private records" in (inside / "index.html").read_text()


def test_a_report_quotes_no_private_record_among_public_ones(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor by another path of the run, or another form of the text."""
    train = finished.parent / "study" / "train.jsonl"
    private = json.loads(train.read_text().splitlines()[0])["text"]
    public = [f"acute {number} of another text" for number in range(40)]
    some = tmp_path / "some.jsonl"
    texts = [*public[:9], f" {private.replace(' ', '  ')} ", *public[9:]]
    some.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    link = tmp_path / "link"
    link.symlink_to(finished / "adapter")
    own = finished / "personal" / "east"
    shutil.copytree(finished / "adapter", own)
    monkeypatch.chdir(finished / "adapter")
    for run_ in (finished, Path(), link, own):
        with pytest.raises(RefusedError, match="the report must stay with the records"):
            cl.explain_model(run_, tmp_path / "away", data=some, most=10)
    shutil.rmtree(finished / "personal")
    done = cl.explain_model(finished, tmp_path / "away", data=some, most=1, methods=QUICK)
    assert done.private is None  # what is not quoted may be there, as in public collections


def test_an_input_is_a_private_record_in_any_form() -> None:
    words = ("chest", "pain")
    turns = (Message("system", "be brief"), Message("user", "chest pain"))
    records: list[Record] = [
        TokenRecord(words, ("O", "O")),
        PairRecord("chest", "x", text_b="pain"),
        ChatRecord((*turns, Message("assistant", "rest"))),
        ChatRecord((), text="chest pain"),
    ]
    for record in records:
        for given in (
            "chest pain",
            words,
            [*words],
            " chest\n pain",
            (Message("user", "chest pain"),),
        ):
            assert plain_input(given) in inputs_of(record), (record, given)
        assert plain_input("chest") not in inputs_of(record)
    asked = [{"role": one.role, "content": one.content} for one in turns]
    assert plain_input(asked) in inputs_of(records[2])


def test_a_delivered_adapter_needs_its_site(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("cardiology", "dermatology", "orthopaedics")
    adapter = exported(tmp_path / "adapter", bert, TaskConfig(labels=labels, max_length=16))
    (adapter / NOTE).write_text("{}")
    site = tmp_path / "site"
    site.mkdir()
    (site / "site.toml").write_text(EXAMPLE)
    row = {"text": "severe chest pain", "label": "cardiology", "patient_id": "1"}
    (site / "records.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UsageError, match="--site"):
        cl.explain_model(adapter, tmp_path / "why", texts=["fever"], methods=QUICK)
    named = {"methods": QUICK, "site": site / "site.toml"}
    with pytest.raises(RefusedError, match="st-marys"):
        cl.explain_model(adapter, tmp_path / "why", texts=["severe chest pain"], **named)  # type: ignore[arg-type]
    cl.explain_model(adapter, site / "why", texts=["severe chest pain"], **named)  # type: ignore[arg-type]
    done = cl.explain_model(adapter, tmp_path / "public", texts=["mild fever"], **named)  # type: ignore[arg-type]
    assert done.private is None
    assert not (tmp_path / "why").exists()


def test_what_does_not_apply_is_refused_by_name(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "why")]
    asked = ["model", "explain", str(finished)]
    assert run([*asked, *out]) == 2
    assert "give either texts (--text)" in capsys.readouterr().err
    assert run([*asked, "--text", TEXT, "--text", " ", *out]) == 3
    assert "input 2: empty" in capsys.readouterr().err
    assert run([*asked, "--text", TEXT, "--method", "shap", *out]) == 2
    assert "shap given; choose from integrated-gradients" in capsys.readouterr().err
    (tmp_path / "why").mkdir()
    assert run([*asked, "--text", TEXT, *out]) == 2
    assert "not overwritten" in capsys.readouterr().err


class Words:
    """A model that answers by whether words occur."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.workspace = type("W", (), {"task": None})

    def predict(self, texts: list[str]) -> list[Classified]:
        found = [any(word in text.split() for word in self.words) for text in texts]
        return [Classified("yes" if one else "no", {}, False) for one in found]


def test_edits_that_flip_an_answer_are_found() -> None:
    model, text = Words("good"), "a good film"
    found = probe_edits(model, text, model.predict([text])[0], ["good"])  # type: ignore[arg-type]
    assert [(edit.kind, edit.what, new) for edit, new in found.flips] == [(DELETION, "good", "no")]
    assert found.tried == {DELETION: 3, NEGATION: 1, NUMBER: 0}


def test_several_words_go_together_where_one_is_not_enough() -> None:
    model, text = Words("good", "fine"), "a good and fine old film"
    order = ["good", "fine", "film"]
    found = probe_edits(model, text, model.predict([text])[0], order)  # type: ignore[arg-type]
    assert [(edit.kind, edit.what) for edit, _ in found.flips] == [(SEVERAL, "good, fine")]
    assert found.flips[0][0].given == "a and old film"


def test_numbers_become_others() -> None:
    assert with_other_numbers("9 of 12.5, two") == [
        "90 of 12.5, two",
        "1 of 12.5, two",
        "9 of 12.50, two",
        "9 of 22.5, two",
        "9 of 12.5, three",
    ]


def test_negations_go_and_come() -> None:
    assert without_negation("It isn't good, it can't be, not at all") == [
        "It is good, it can't be, not at all",
        "It isn't good, it can be, not at all",
        "It isn't good, it can't be, at all",
    ]
    assert with_negation("it is good") == ["it is not good"]
    assert with_negation("it isn't") == ["it is not true that it isn't"]
    assert without_negation("味道不好，没有肉，不错") == [
        "味道好，没有肉，不错",
        "味道不好，有肉，不错",
    ]
    assert with_negation("味道好") == ["味道不好"]
    assert with_negation("一般") == ["并非如此：一般"]


def test_a_heat_map_colours_by_sign_and_size_and_escapes() -> None:
    shown = heat(["<a>", "b", "c"], [" ", " ", ""], torch.tensor([2.0, -1.0, 0.0]).tolist())
    assert "rgba(0,114,178,0.60)" in shown
    assert 'class="against" style="background:rgba(213,94,0,0.30)"' in shown
    assert "&lt;a&gt;" in shown
