"""The GPU's script runs on a CPU in a tiny size, and says of what cannot run that it did not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig

from benchmarks import gpu, kept_layers
from cloister.data.records import TextRecord
from tests.support.studies import small_workspace

ROOT = Path(__file__).parents[1]


def test_its_parts_run_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.md"
    small = ["--device", "cpu", "--size", "tiny", "--parts", "isolation", "oracle", "speed"]
    assert gpu.main([*small, "--out", str(out)]) == 0
    table = out.read_text()
    assert capsys.readouterr().out == table
    found = dict(line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    assert found["device"] == "cpu"
    for edge in (8, 16, 24, 32):
        assert found[f"bit-equal in bf16, tiny, {edge} tokens"].startswith("rows 1")
    gaps = [
        float(found[f"oracle gap, {kind}, tiny"].split()[0]) for kind in ("float32", "bfloat16")
    ]
    assert gaps[0] < 1e-5
    assert gaps[1] < 3e-2  # bfloat16 has 8 bits, and sums of 32 tokens of it
    assert float(found["private ÷ plain step, tiny, rank 4, bf16, 4 × 32"]) > 0
    assert float(found["private ÷ plain step, tiny, rank 4, bf16, 4 × 32, checkpointing"]) > 0
    assert "tokens a second" in found["private step, tiny, rank 4, bf16, 4 × 32"]


def test_operations_are_those_of_frozen_linear_layers_on_real_tokens(bert: Path) -> None:
    opened = small_workspace(bert)
    shapes = AutoConfig.from_pretrained(bert)
    width, inner = shapes.hidden_size, shapes.intermediate_size
    layer = 4 * width**2 + 2 * width * inner  # queries, keys, values, outputs; two of the MLP
    records = [TextRecord("chest pain", "cardiology"), TextRecord("knee", "orthopaedics")]
    tokens = sum(len(example.input_ids) for example in opened.encode(records))
    expected = 4 * shapes.num_hidden_layers * layer * tokens
    assert kept_layers.operations(opened, records) == expected


def test_without_a_gpu_every_row_says_that_it_was_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(gpu.PARTS) + 1
    assert all("| not run: machine.device: cuda given" in row for row in rows)


def test_a_part_that_fails_is_said_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(device: str, is_tiny: bool) -> object:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.PARTS, "isolation", broken)  # type: ignore[arg-type]
    monkeypatch.setitem(gpu.PARTS, "oracle", lambda device, is_tiny: iter([gpu.Row("o", "fine")]))
    assert gpu.main(["--device", "cpu", "--size", "tiny", "--parts", "isolation", "oracle"]) == 1
    told = capsys.readouterr().out
    assert "| isolation | FAILED: no such kernel |" in told
    assert "| o | fine |" in told


@pytest.mark.nightly
def test_the_script_runs_all_of_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "benchmarks/gpu.sh", "--device", "cpu", "--size", "tiny"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a deployed site over loopback, two rounds | finished; computed on cpu" in done.stdout
