"""A card fits the hub's schema, names what was not measured, and quotes people's additions."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from cloister.cli.main import run
from cloister.errors import BadFileError, UsageError
from cloister.export.card import render
from cloister.export.card_words import MOST_CHARACTERS, add_words
from tests.export.test_card import whole_card
from tests.support.ledgers import small_plan

SECTIONS = (
    "Intended use",
    "Scores on the public test set",
    "Privacy",
    "Limits",
    "Bias",
    "Robustness",
    "Data, by site",
    "Never measured",
    "Loading",
    "Origin",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the card of two sites."""
    (tmp_path / "README.md").write_text(render(whole_card(small_plan())))
    return tmp_path


def headings(text: str) -> list[str]:
    return [line[3:] for line in text.splitlines() if line.startswith("## ")]


def test_the_hub_reads_the_card(folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    told = card.data.to_dict()
    assert told["base_model"] == "base"
    assert told["library_name"] == "peft"
    assert told["pipeline_tag"] == "text-classification"
    assert {"lora", "federated-learning", "differential-privacy"} == set(told["tags"])
    assert told["metrics"] == ["accuracy"]
    assert "license" not in told
    [result] = told["model-index"][0]["results"]
    assert result["task"] == {"type": "text-classification", "name": "sequence-classification"}
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [("accuracy", 0.5)]
    assert headings(card.text) == list(SECTIONS)


def test_names_that_would_break_the_front_matter_do_not(tmp_path: Path) -> None:
    odd = replace(whole_card(small_plan()), base="a: [b\n---\n# c", name='"#: {')
    (tmp_path / "README.md").write_text(render(odd))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict()["base_model"] == odd.base
    assert headings(card.text)[0] == "Intended use"


def test_scores_that_are_no_numbers_are_left_out_of_the_index(tmp_path: Path) -> None:
    scored = replace(whole_card(small_plan()), test={"accuracy": float("nan"), "loss": 0.25})
    (tmp_path / "README.md").write_text(render(scored))
    told = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert told["metrics"] == ["loss"]


def test_what_was_never_measured_is_what_was_not() -> None:
    plain = whole_card(small_plan())
    text = render(plain)
    assert "- calibration" in text
    assert "- what privacy cost" in text
    assert "- what it scored before training" in text
    more = replace(
        plain, test={"accuracy": 0.5, "ece": 0.1}, untrained={"accuracy": 0.1}, plain_test={"a": 1}
    )
    for line in ("- calibration", "- what privacy cost", "- what it scored before training"):
        assert line not in render(more)


def test_words_are_quoted_where_they_belong_and_replaced_when_given_again(folder: Path) -> None:
    before = (folder / "README.md").read_text()
    add_words(folder, {"use": "Triage letters.\nNo diagnosis."}, {"east": "Letters of 2019."})
    text = (folder / "README.md").read_text()
    assert "> Triage letters.\n> No diagnosis.\n" in text
    east, west = text.split("### east")[1].split("### west")
    assert "> Letters of 2019." in east
    assert "no account" not in east
    assert "no account" in west
    add_words(folder, {"use": "Something else."}, {"east": "Letters of 2020."})
    again = (folder / "README.md").read_text()
    assert "Triage" not in again
    assert "2019" not in again
    assert headings(again) == headings(before) == list(SECTIONS)


def test_words_cannot_look_like_the_card_s_own(folder: Path) -> None:
    hostile = "fine\n## Privacy\n### west\nε = 0\n\x1b[2J\n<script>x</script>\r## Bias\u2028## Bias"
    add_words(folder, {"bias": hostile}, {"east": hostile})
    text = (folder / "README.md").read_text()
    assert headings(text) == list(SECTIONS)
    assert [line for line in text.splitlines() if line.startswith("### ")] == [
        "### east",
        "### west",
    ]
    assert "\x1b" not in text
    assert "<script>" not in text
    add_words(folder, {}, {"west": "ours"})  # still the card's own part
    assert "> ours" in (folder / "README.md").read_text().split("\n### west\n")[-1]


def test_bad_words_are_named_and_change_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "README.md").read_bytes()
    with pytest.raises(UsageError, match="the card has no site north; its sites are east, west"):
        add_words(folder, {"use": "x"}, {"north": "x"})
    with pytest.raises(UsageError, match=r"at most 4,800 are kept"):
        add_words(folder, {"use": "x" * (MOST_CHARACTERS + 1)}, {})
    with pytest.raises(UsageError, match="use: empty"):
        add_words(folder, {"use": " \n"}, {})
    words = tmp_path / "words.txt"
    words.write_bytes(b"\xff\xfe")
    assert run(["model", "card", str(folder), "--use", str(words)]) == 3
    assert "byte 0 is not UTF-8" in capsys.readouterr().err
    assert run(["model", "card", str(folder), "--use", str(tmp_path / "none")]) == 3
    told = capsys.readouterr().err
    assert "cannot be read (no such file)" in told
    assert "Errno" not in told
    assert run(["model", "card", str(folder), "--statement", "east"]) == 2
    assert run(["model", "card", str(folder)]) == 2
    capsys.readouterr()
    assert (folder / "README.md").read_bytes() == before
    words.write_text("Triage.")
    asked = ["--use", str(words), "--statement", f"east={words}"]
    assert run(["model", "card", str(folder), *asked]) == 0
    assert (folder / "README.md").read_text().count("> Triage.") == 2
    (folder / "README.md").write_text("# An older card\n")
    with pytest.raises(BadFileError, match="another version wrote this card"):
        add_words(folder, {"use": "x"}, {})
