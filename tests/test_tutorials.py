"""The tutorials' notebooks run from their first cell to their last, in a folder of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    finished = subprocess.run(
        [sys.executable, "-c", code_of(notebook)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
