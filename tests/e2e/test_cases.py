"""Small inputs that once failed, through the command line: each gives what its owner would expect.

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

    def refused_with_row(self, row: int) -> bool:
        """Whether a file was refused, with the row that is wrong."""
        return self.code == 3 and bool(re.search(rf"\brow {row}\b", self.told))

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
        self, train: Path, test: Path, *assignments: str, base: Path | None = None,
        recipe: Path | None = None,
    ) -> Outcome:  # fmt: skip
        """Two sites that draw every record, one round of one step: whatever can fail does."""
        base = base or tiny_bert(self.folder / "bert")
        out = self.folder / "run"
        values = [
            f"model.base='{base}'", f"data.train='{train}'", f"data.test='{test}'",
            "data.sites=2", "data.partition=iid", "data.public_records=20",
            "training.expected_batch_size=20", "training.mode=local-steps",
            "training.local_steps=1", "lora.train=both", "lora.top_layers=0", "task.max_length=16",
            "privacy.noise_multiplier=1.0", "privacy.max_grad_norm=1.0",
            "tracking.tensorboard=false",
            *([] if recipe else ["study.name=case", "federation.num_rounds=1"]), *assignments,
        ]  # fmt: skip
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


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize(
    ("length", "fits"), [(64, True), (65, False), (128, False), (10**6, False)]
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
