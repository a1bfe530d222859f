"""The second quickstart runs on a tiny base, compares three models and exports one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import tiny_llama

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly  # a minute; what it calls is tested by itself
def test_the_demonstration_runs_to_its_end(tmp_path: Path) -> None:
    out, llama = tmp_path / "demo", tiny_llama(tmp_path / "base", positions=96)
    words = [str(ROOT / "demos" / "llm.py"), str(out), "--base", str(llama)]
    finished = subprocess.run(
        [sys.executable, *words, "--each", "8", "--rounds", "1", "--layers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    table = finished.stdout.partition("perplexity")[2]
    assert [line.split(",")[0].split()[0] for line in table.splitlines()[1:4]] == [
        "untrained",
        "private",
        "plain",
    ]
    assert json.loads((out / "run" / "result.json").read_text())["plain_test"]
    assert (out / "clinic-desks.gguf").read_bytes()[:4] == b"GGUF"
    again = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "is there already" in again.stderr
