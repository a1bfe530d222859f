"""Small inputs that failed before give what their owner expects, on the command line.

Each stands for a kind, which the tests of its own room go through; here is that nothing between a
file and a finished study brings it back.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.cli.main import run
from tests.support.models import tiny_bert, tiny_gpt2, tiny_llama

LABELS = ("a", "b")


@dataclass(frozen=True)
class Outcome:
    """What a command came to.

    Attributes:
        code: Its exit code.
        told: All that it printed, on one line.
        out: The run's folder.
    """

    code: int
    told: str
    out: Path

    def refused(self, row: str) -> bool:
        """Whether the private file was refused, with the row that is wrong (a pattern)."""
        return self.code == 3 and bool(re.search(rf"train\.\w+, row {row}\b", self.told))

    def charges(self) -> list[Path]:
        """The ledgers that were begun."""
        return list(self.out.rglob("*.ledger"))


@dataclass(frozen=True)
class Studies:
    """Studies in one folder, run by the command that a user types."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, name: str, rows: Sequence[object]) -> Path:
        """A JSONL of these rows; strings are lines as they are."""
        path = self.folder / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    def simulate(
        self,
        train: Path,
        test: Path,
        *assignments: str,
        base: Path | None = None,
        recipe: Path | None = None,
    ) -> Outcome:
        """Two sites that draw every record, one round of one step: whatever can fail does."""
        base = base or tiny_bert(self.folder / "bert")
        out = self.folder / "run"
        values = [
            f"model.base='{base}'",
            f"data.train='{train}'",
            f"data.test='{test}'",
            "data.sites=2",
            "data.partition=iid",
            "data.public_records=20",
            "training.expected_batch_size=20",
            "training.mode=local-steps",
            "training.local_steps=1",
            "lora.train=both",
            "lora.top_layers=0",
            "task.max_length=16",
            "privacy.noise_multiplier=1.0",
            "privacy.max_grad_norm=1.0",
            "tracking.tensorboard=false",
            *([] if recipe else ["study.name=case", "federation.num_rounds=1"]),
            *assignments,
        ]
        words = [word for value in values for word in ("--set", value)]
        given = [str(recipe)] if recipe else []
        self.capsys.readouterr()
        code = run(["simulate", *given, *words, "--no-twin", "--out", str(out)])
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, " ".join((captured.err + captured.out).split()), out)


@pytest.fixture
def studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Studies:
    return Studies(tmp_path, capsys)


def notes(count: int) -> list[dict[str, str]]:
    """Texts with labels in turn."""
    return [
        {"text": f"chest pain since monday {index}", "label": LABELS[index % 2]}
        for index in range(count)
    ]


BASES = {"bert": tiny_bert, "gpt2": tiny_gpt2, "llama": tiny_llama}


@pytest.mark.parametrize(
    ("kind", "length", "fits"),
    [
        # As many as there are with the smallest base, one more with another.
        pytest.param(
            kind,
            length,
            fits,
            marks=[] if (kind, length) in (("bert", 64), ("llama", 65)) else pytest.mark.nightly,
        )
        for kind in BASES
        for length, fits in ((64, True), (65, False), (128, False), (131_072, False))
    ],
)
def test_one_record_longer_than_the_base_s_positions(
    studies: Studies, kind: str, length: int, fits: bool
) -> None:
    """It would fail the rounds that draw it, after their charge, and so tell that it is there."""
    long = {"text": " ".join(["rash"] * 200), "label": "a"}
    train = studies.write("train.jsonl", [*notes(40), long])
    test = studies.write("test.jsonl", notes(10))
    base = BASES[kind](studies.folder / "base")
    outcome = studies.simulate(train, test, f"task.max_length={length}", base=base)
    if fits:  # the long one is drawn, cut
        assert outcome.code == 0, outcome.told
    else:
        assert outcome.code == 2
        assert f"task.max_length: {length} given; the base has 64 positions" in outcome.told
        assert outcome.charges() == []


def persons(count: int) -> re.Pattern[str]:
    """So many privacy units, as a run states them."""
    return re.compile(rf"\b{count} (persons|units|privacy units)\b")


PERSON = ("privacy.unit=person", "data.person=patient", "data.partition=person")
# Above 2⁵³, where neighbours are one float, and above 2⁶⁴, where they are no integer of a column.
FIRST = {"16 digits": 9_007_199_254_740_993, "20 digits": 80_276_883_110_000_012_000}


@pytest.mark.parametrize("digits", FIRST)
@pytest.mark.parametrize(
    "quoted",
    [pytest.param(True, marks=pytest.mark.nightly), False],
    ids=["strings", "numbers"],
)
def test_persons_whose_numbers_are_long_stay_apart(
    studies: Studies, digits: str, quoted: bool
) -> None:
    numbers = [FIRST[digits] + index for index in range(40)]
    rows = [
        {**note, "patient": str(number) if quoted else number}
        for note, number in zip(notes(40), numbers, strict=True)
    ]
    train, test = studies.write("train.jsonl", rows), studies.write("test.jsonl", notes(10))
    outcome = studies.simulate(train, test, *PERSON)
    if not outcome.refused(r"\d+"):
        assert outcome.code == 0, outcome.told
        assert persons(40).search(outcome.told), outcome.told


def test_one_number_among_the_names_of_persons_merges_nobody(studies: Studies) -> None:
    """39 strings, 39 others that an integer would read the same as, and a number."""
    names = [*(f"{index:03}" for index in range(39)), *(f"{index}.0" for index in range(39)), 500]
    rows = [{**note, "patient": name} for note, name in zip(notes(79), names, strict=True)]
    train, test = studies.write("train.jsonl", rows), studies.write("test.jsonl", notes(10))
    outcome = studies.simulate(train, test, *PERSON, "data.public_records=40")
    if not outcome.refused("79"):
        assert outcome.code == 0, outcome.told
        assert persons(79).search(outcome.told), outcome.told


def test_labels_are_those_that_are_written(studies: Studies) -> None:
    labels = ["01", 1, "001", "abc"]
    rows = [{"text": f"chest pain {index}", "label": labels[index % 4]} for index in range(40)]
    train, test = studies.write("train.jsonl", rows), studies.write("test.jsonl", rows[:12])
    outcome = studies.simulate(train, test)
    if not outcome.refused("2"):
        assert outcome.code == 0, outcome.told
        about = json.loads((outcome.out / "adapter" / "cloister.json").read_text())
        assert sorted(about["task"]["labels"]) == ["001", "01", "1", "abc"]


# Each alone is in tests/data; here one through the whole path.
@pytest.mark.parametrize(
    "label",
    [
        "null",
        *(
            pytest.param(label, marks=pytest.mark.nightly)
            for label in ("true", "1e3", "NA", "2024-01-01", " ", "None")
        ),
    ],
)
def test_a_label_that_reads_like_something_else_is_a_word(studies: Studies, label: str) -> None:
    rows = [
        {"text": f"itchy rash {index}", "label": (label, "b")[index % 2]} for index in range(40)
    ]
    train, test = studies.write("train.jsonl", rows), studies.write("test.jsonl", rows[:12])
    outcome = studies.simulate(train, test)
    if not outcome.refused("1"):
        assert outcome.code == 0, outcome.told
        about = json.loads((outcome.out / "adapter" / "cloister.json").read_text())
        assert sorted(about["task"]["labels"]) == sorted([label, "b"])


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without", "with"])
def test_a_recipe_with_a_byte_order_mark_is_read(studies: Studies, mark: str) -> None:
    recipe = studies.folder / "recipe.toml"
    text = '[study]\nname = "marked"\n\n[federation]\nnum_rounds = 2\n'
    recipe.write_text(mark + text, encoding="utf-8")
    train, test = studies.write("train.jsonl", notes(40)), studies.write("test.jsonl", notes(10))
    outcome = studies.simulate(train, test, recipe=recipe)
    assert outcome.code == 0, outcome.told
    assert "2/2" in outcome.told  # the recipe's rounds


def test_conversations_that_are_cut_before_their_answer_are_counted_before_training(
    studies: Studies,
) -> None:
    question = " ".join(["rash"] * 40)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "no fever"}]
    short = [{"role": "user", "content": "rash"}, {"role": "assistant", "content": "no fever"}]
    rows = [{"messages": turns}] * 30
    train = studies.write("train.jsonl", rows)
    test = studies.write("test.jsonl", [{"messages": short}] * 4)
    base = tiny_llama(studies.folder / "llama")
    chat = ("task.kind=causal-lm", "data.public_records=15", "training.expected_batch_size=15")
    outcome = studies.simulate(train, test, *chat, base=base)
    assert outcome.code == 0, outcome.told
    warning = re.search(r"warning: [^…]*?\b30 of 30\b", outcome.told)
    assert warning, outcome.told
    assert warning.start() < outcome.told.index("1/1")  # the first round


def test_conversations_that_are_cut_behind_their_answer_are_no_warning(studies: Studies) -> None:
    turns = [{"role": "user", "content": "rash"}, {"role": "assistant", "content": "fever " * 40}]
    rows = [{"messages": turns}] * 30
    train, test = studies.write("train.jsonl", rows), studies.write("test.jsonl", rows[:4])
    base = tiny_llama(studies.folder / "llama")
    chat = ("task.kind=causal-lm", "data.public_records=15", "training.expected_batch_size=15")
    outcome = studies.simulate(train, test, *chat, base=base)
    assert outcome.code == 0, outcome.told
    assert "of 30" not in outcome.told


def test_one_name_that_holds_most_records_is_warned_of_and_a_test_set_needs_no_person(
    studies: Studies,
) -> None:
    train, test = studies.folder / "train.csv", studies.folder / "test.csv"
    names = [str(index // 3) if index % 3 == 0 else "NA" for index in range(60)]
    rows = [f"{n['text']},{n['label']},{name}" for n, name in zip(notes(60), names, strict=True)]
    train.write_text("\n".join(["text,label,patient", *rows, ""]), encoding="utf-8")
    plain = [f"{note['text']},{note['label']}" for note in notes(10)]
    test.write_text("\n".join(["text,label", *plain, ""]), encoding="utf-8")
    outcome = studies.simulate(
        train, test, *PERSON, "data.public_records=10", "training.expected_batch_size=10"
    )
    assert outcome.code == 0, outcome.told
    assert persons(21).search(outcome.told), outcome.told
    assert re.search(r"warning: .*'NA'.*\b40 of 60\b", outcome.told), outcome.told
