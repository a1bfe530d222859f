"""A kept proof is used only where nothing that it depends on has changed."""

import ast
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import cloister
from cloister.errors import PreflightError, UsageError
from cloister.privacy.plan import Plan
from cloister.training import kept_proofs, proof_key
from cloister.training.config import TrainingConfig
from cloister.training.kept_proofs import KEPT, MOST_BYTES, ProofFolder, known_or_proven
from cloister.training.proof import Proof
from cloister.training.shapes import one_by_one
from cloister.training.workspace import Workspace
from tests.support.isolation import CONFIG, PLAN, wide_workspace

Bases = Callable[[str], Path]


@pytest.fixture
def workspace(bases: Bases) -> Workspace:
    return wide_workspace(bases("bert"), "sequence-classification")


class Machine:
    """Counts proofs without computing them, and forgets them as a new process would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.proved = 0
        self.folder = folder
        self._patch = monkeypatch
        monkeypatch.setattr(kept_proofs, "proven", self._prove)

    def _prove(
        self, workspace: Workspace, plan: Plan, config: TrainingConfig, *, max_adapter_value: float
    ) -> Proof:
        self.proved += 1
        shapes = proof_key.shapes_to_try(workspace, config)
        shapes = replace(shapes, threads=torch.get_num_threads())
        key = Proof.key_of(workspace, plan, config, max_adapter_value=max_adapter_value)
        seconds = tuple((shape.length, shape.rows, 0.5) for shape in shapes.all())
        return Proof(shapes, seconds, 2**20, key, "2026-11-30 12:50")

    def run(
        self, workspace: Workspace, plan: Plan = PLAN, config: TrainingConfig = CONFIG
    ) -> kept_proofs.KnownProof:
        """Finds or makes a proof in what would be a new process."""
        self._patch.setattr(kept_proofs, "_found", {})
        return known_or_proven(workspace, plan, config)

    def file(self, workspace: Workspace) -> Path:
        """Returns the entry of a study."""
        return self.folder / f"{Proof.key_of(workspace, PLAN, CONFIG)}.json"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    monkeypatch.setenv("CLOISTER_KEPT_PROOFS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Machine(monkeypatch, tmp_path / "cloister" / "proofs")


def test_the_next_process_takes_the_proof_and_says_so(
    machine: Machine, workspace: Workspace
) -> None:
    first = machine.run(workspace)
    assert str(first) == "per-record gradients: proved on this machine"
    kept = machine.run(workspace)
    assert machine.proved == 1
    assert kept.proof == first.proof
    assert str(kept) == (
        "per-record gradients: proved on 2026-11-30 12:50 UTC on this machine, kept"
    )
    assert kept.to_json()["kept"] is True
    assert known_or_proven(workspace, PLAN, CONFIG) is kept  # read once for a process
    assert machine.file(workspace).stat().st_mode & 0o777 == 0o600
    assert machine.folder.stat().st_mode & 0o777 == 0o700


def test_a_kept_proof_of_one_record_at_a_time_is_taken(
    machine: Machine, workspace: Workspace
) -> None:
    proof = machine.run(workspace).proof
    alone = replace(one_by_one(proof.shapes.longest), threads=torch.get_num_threads())
    seconds = tuple((shape.length, shape.rows, 0.5) for shape in alone.all())
    ProofFolder(machine.folder).write(replace(proof, shapes=alone, seconds=seconds))
    assert machine.run(workspace).proof.one_by_one
    assert machine.proved == 1


def test_each_part_of_the_key_that_changes_is_proved_again(
    machine: Machine, workspace: Workspace, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run(workspace)
    studies = [
        (replace(workspace, base_sha256="0" * 64), PLAN, CONFIG),
        (wide_workspace(bases("bert"), "sequence-classification", dtype="bfloat16"), PLAN, CONFIG),
        (wide_workspace(bases("bert"), "sequence-classification", r=3), PLAN, CONFIG),
        (wide_workspace(bases("bert"), "sequence-classification", alpha=3.0), PLAN, CONFIG),
        (workspace, replace(PLAN, max_grad_norm=2.0), CONFIG),
        (workspace, PLAN, replace(CONFIG, physical_batch_tokens=128)),
        (workspace, PLAN, replace(CONFIG, padded_lengths=(16, 40))),
        (workspace, PLAN, replace(CONFIG, probe_rounds=1)),
        (workspace, PLAN, replace(CONFIG, expected_batch_size=20)),
    ]
    for number, study in enumerate(studies):
        machine.run(*study)
        assert machine.proved == 2 + number
    about = workspace.network.backbone.config
    packages = ("cloister", "torch", "transformers", "peft", "numpy")
    changes: list[tuple[object, str, object]] = [
        *((proof_key, "version", lambda of, name=name: f"9.{of == name}") for name in packages),
        (proof_key, "_processor", lambda: "another"),
        (proof_key, "code_sha256", lambda: "another"),
        (proof_key, "_device", lambda network: "another"),
        (proof_key, "_switches", lambda: {"mkldnn": [True, False]}),
        (platform, "libc_ver", lambda: ("glibc", "9.9")),
        (torch.__config__, "show", lambda: "another"),
        (about, "num_attention_heads", 2),
    ]
    for owner, name, value in changes:
        before = machine.proved
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            machine.run(workspace)
        assert machine.proved == before + 1, name
    for variable in ("MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "LD_PRELOAD", "GLIBC_TUNABLES"):
        before = machine.proved
        with monkeypatch.context() as patch:
            patch.setenv(variable, "another")
            machine.run(workspace)
        assert machine.proved == before + 1, variable
    before = machine.proved
    assert machine.run(workspace).is_kept
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")  # as scikit-learn does when it is loaded
    assert machine.run(workspace).is_kept
    assert machine.proved == before


def test_another_number_of_threads_is_proved_again(machine: Machine, workspace: Workspace) -> None:
    machine.run(workspace)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        machine.run(workspace)
    finally:
        torch.set_num_threads(before)
    assert machine.proved == 2


def test_an_entry_of_another_key_is_not_taken(machine: Machine, workspace: Workspace) -> None:
    other = replace(PLAN, max_grad_norm=2.0)
    foreign = machine.run(workspace, other).proof
    machine.run(workspace)
    (machine.folder / f"{foreign.key}.json").replace(machine.file(workspace))
    assert machine.run(workspace).proof.key == Proof.key_of(workspace, PLAN, CONFIG)
    assert machine.proved == 3
    assert machine.run(workspace).is_kept  # the right one is there again


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: b"",
        lambda entry: b"\x00\xff",
        lambda entry: b"null",
        lambda entry: b"[]",
        lambda entry: b"[" * 10_000,
        lambda entry: json.dumps(entry).encode()[:-1],
        lambda entry: b" " * (MOST_BYTES + 1),
        lambda entry: {**entry, "more": 1},
        lambda entry: {name: entry[name] for name in entry if name != "proved"},
        lambda entry: {**entry, "proved": "yesterday"},
        lambda entry: {**entry, "peak_bytes": "1"},
        lambda entry: {**entry, "seconds": []},
        lambda entry: {**entry, "seconds": [[a, b, -1.0] for a, b, _ in entry["seconds"]]},
        lambda entry: {**entry, "seconds": 2 * entry["seconds"]},
        lambda entry: {**entry, "shapes": {**entry["shapes"], "threads": None}},
        lambda entry: {**entry, "shapes": {**entry["shapes"], "counts": []}},
        lambda entry: _counts(entry, lambda rows: []),
        lambda entry: _counts(entry, lambda rows: [*rows, 3]),
        lambda entry: _counts(entry, lambda rows: [*rows, 2 * rows[-1]]),
    ],
)
def test_a_damaged_entry_is_proved_again(
    machine: Machine,
    workspace: Workspace,
    damage: Callable[[dict[str, object]], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine.run(workspace)
    file = machine.file(workspace)
    whole = file.read_bytes()
    damaged = damage(json.loads(whole))
    file.write_bytes(damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode())
    assert not machine.run(workspace).is_kept
    assert machine.proved == 2
    assert "this kept proof is not used" in caplog.text
    assert file.read_bytes() == whole


def _counts(entry: dict[str, object], change: Callable[[list[int]], list[int]]) -> object:
    shapes = json.loads(json.dumps(entry["shapes"]))
    shapes["counts"] = [[edge, change(rows)] for edge, rows in shapes["counts"]]
    timed = [[edge, count, 0.5] for edge, rows in shapes["counts"] for count in rows]
    return {**entry, "shapes": shapes, "seconds": timed}


@pytest.mark.parametrize("of_folder", [False, True])
def test_an_entry_that_others_may_write_is_proved_again(
    machine: Machine, workspace: Workspace, of_folder: bool
) -> None:
    machine.run(workspace)
    (machine.folder if of_folder else machine.file(workspace)).chmod(0o777)
    machine.run(workspace)
    assert machine.proved == 2
    assert machine.run(workspace).is_kept  # both are the owner's alone again


def test_a_study_can_be_proved_each_time(
    machine: Machine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_KEPT_PROOFS", "0")
    machine.run(workspace)
    machine.run(workspace)
    assert machine.proved == 2
    assert not machine.folder.exists()
    monkeypatch.setenv("CLOISTER_KEPT_PROOFS", "yes")
    with pytest.raises(UsageError, match=r"'yes' given in the environment; 0 .* or 1"):
        machine.run(workspace)


def test_code_that_the_key_does_not_name_is_proved_each_time(
    machine: Machine, workspace: Workspace
) -> None:
    plugged = type("Plugged", (type(workspace.task),), {"origin": ("package", "2.0", "{}")})
    machine.run(replace(workspace, task=plugged(**vars(workspace.task))))
    head, workspace.network.head = workspace.network.head, Foreign()
    machine.run(workspace)
    workspace.network.head = head
    assert machine.proved == 2
    assert not machine.folder.exists()


class Foreign(nn.Module):
    """A module of this file, whose package has no version in the key."""


def test_a_refusal_is_not_kept(
    machine: Machine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Proof:
        raise PreflightError("preflight: no")

    with monkeypatch.context() as patch:
        patch.setattr(kept_proofs, "proven", refuse)
        with pytest.raises(PreflightError):
            machine.run(workspace)
    assert not machine.folder.exists()


def test_the_oldest_entries_are_removed(machine: Machine, workspace: Workspace) -> None:
    proof = machine.run(workspace).proof
    folder = ProofFolder(machine.folder)
    for number in range(KEPT):
        old = machine.folder / f"{number:064x}.json"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    (machine.folder / "notes.txt").write_text("the user's")
    folder.write(proof)
    left = {file.name for file in machine.folder.iterdir()}
    assert len(left) == KEPT + 1
    assert {machine.file(workspace).name, "notes.txt", f"{1:064x}.json"} <= left
    assert f"{0:064x}.json" not in left


def test_where_nothing_can_be_kept_a_study_is_proved(
    machine: Machine, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    machine.folder.parent.write_text("in the way")
    assert not machine.run(workspace).is_kept
    assert machine.proved == 1
    assert "could not be kept" in caplog.text


def test_the_code_of_a_key_is_all_that_a_proof_imports() -> None:
    package = Path(cloister.__file__).parent
    covered = {package / room for room in proof_key.ROOMS}
    seen: set[Path] = set()
    left = [package / "training" / "proof.py"]
    while left:
        file = left.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cloister"):
                place = package.parent.joinpath(*str(node.module).split("."))
                names = [place.with_suffix(".py")]
                names += [(place / name.name).with_suffix(".py") for name in node.names]
                left += [name for name in names if name.is_file()]
    assert len(seen) > 50
    missing = {f for f in seen if f.parent != package and not covered & {*f.parents}}
    assert missing == set()
