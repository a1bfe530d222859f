"""The tutorials run from their first cell or command to their last, in a folder of their own."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.cli.main import run
from tests.support import worker_forks

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def code_of(notebook: Path) -> str:
    """The cells as one program; the last expression of a cell is evaluated, not shown."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_there_is_one_for_each_kind_of_reader() -> None:
    assert [path.stem for path in TUTORIALS] == [
        "a-privacy-officer-checks",
        "an-institution-joins",
        "first-private-study",
    ]


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    """Outputs would hold the paths and figures of whoever ran it last."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize(
    "notebook",
    [
        # The two that train take most of a minute each.
        pytest.param(path, marks=[] if "joins" in path.stem else pytest.mark.nightly)
        for path in TUTORIALS
    ],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    finished = worker_forks.run([sys.executable, "-c", code_of(notebook)], cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]


TABLE = ROOT / "docs" / "tutorials" / "chinese-table.md"
# A page that waits for a person; tests/labelling has it.
WAITS = "cloister data label"


def blocks_of(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands_of(page: Path) -> list[str]:
    lines = "".join(blocks_of(page, "console")).replace("\\\n", " ").splitlines()
    assert all(line.startswith("$ cloister ") for line in lines)
    return [line[2:] for line in lines]


def test_a_page_says_the_same_in_both_languages() -> None:
    chinese = TABLE.with_name("chinese-table-zh.md")
    assert commands_of(chinese) == commands_of(TABLE)
    assert blocks_of(chinese, "python") == blocks_of(TABLE, "python")
    for page in (TABLE, chinese):
        assert "![" not in page.read_text(encoding="utf-8")


def follow(commands: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (program,) = blocks_of(TABLE, "python")
    subprocess.run([sys.executable, "-c", program], check=True)
    for command in commands:
        if not command.startswith(WAITS):
            assert run(shlex.split(command)[1:]) == 0, command


def test_a_messy_table_is_made_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = commands_of(TABLE)
    ready = next(at for at, command in enumerate(commands) if command.startswith("cloister plan"))
    follow(commands[:ready], tmp_path, monkeypatch)
    told = capsys.readouterr().out
    for words in ("GB18030", "semicolons", "label = 科室 (guessed)", "RESIDENT_ID", "PHONE"):
        assert words in told, words
    texts = (tmp_path / "parts" / "train.jsonl").read_text(encoding="utf-8")
    assert "[PHONE_1]" in texts
    for left in ("<p>", "&nbsp;", "１", '"骨科 "'):
        assert left not in texts
    assert 'unit = "person"' in (tmp_path / "study.toml").read_text(encoding="utf-8")


@pytest.mark.nightly
def test_a_messy_table_becomes_an_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(commands_of(TABLE), tmp_path, monkeypatch)
    assert "儿科" in capsys.readouterr().out.splitlines()[-1]
