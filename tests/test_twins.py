"""Every result of a twin without privacy says that the twin was not tuned."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloister.cli.main import run
from simulations.compare import row, variants

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "simulations").rglob("*.md")),
]


def names_a_twin(line: str) -> bool:
    """Whether a table's row is a run of ours without privacy."""
    return line.startswith("|") and bool(re.search(r"\| plain\b", line))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_table_s_twin_is_called_untuned(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if names_a_twin(line) and "untuned" not in line] == []


def test_the_tables_have_twins() -> None:
    text = (ROOT / "simulations" / "README.md").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if names_a_twin(line)]) == 9


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_bank_intents_twin_is_never_quoted_without_what_beats_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert ("0.9039" in text) <= ("0.9295" in text)


def test_the_comparison_s_script_says_so_itself() -> None:
    recipe = ROOT / "simulations" / "bank_intents.toml"
    assert "plain twin" in variants(recipe, [])  # what `--only` takes
    result = SimpleNamespace(
        metric="accuracy", test={"accuracy": 0.5}, sites=[SimpleNamespace(epsilon=float("inf"))]
    )
    shown = row("study", "plain twin", [(result, 1.0)])  # type: ignore[list-item]
    assert shown.startswith("| study | plain twin, untuned | inf |")
    assert row("study", "recipe", [(result, 1.0)]).startswith("| study | recipe |")  # type: ignore[list-item]


def test_a_run_with_its_twin_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.studies import small_assignments

    sets = [word for value in small_assignments(tmp_path / "study") for word in ("--set", value)]
    rounds = ["--set", "federation.num_rounds=1"]
    out = tmp_path / "run"
    assert run(["simulate", *sets, *rounds, "--twin", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "no privacy, untuned" in told.err + told.out
    assert "without privacy, untuned" in (out / "adapter" / "README.md").read_text()
