"""With `training.adapter_dtype` the coordinator keeps what it sends, through kills too."""

import json
from pathlib import Path

import pytest

from cloister.adapter.tensors import Adapter
from cloister.ledger.storage import LedgerFile
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import prepare, workspace_of
from cloister.strategies.strategy import ServerState
from cloister.training.question import Question
from tests.support.studies import small_recipe

INT8 = ("training.adapter_dtype=int8", "training.update_dtype=int8", "federation.num_rounds=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapter-dtype")


def bits(adapter: Adapter) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in adapter.items()}


class Seen:
    """The adapters that the coordinator saved, and those with which sites began, by round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.saved: dict[int, dict[str, bytes]] = {}
        self.begun: dict[int, list[dict[str, bytes]]] = {}
        save, decode = RunDirectory.save, Question.decode

        def saving(run: RunDirectory, state: ServerState, *more: object) -> None:
            self.saved[state.round] = bits(state.adapter)
            save(run, state, *more)  # type: ignore[arg-type]

        def decoding(question: Question, data: bytes, number: int) -> Adapter:
            found = decode(question, data, number)
            self.begun.setdefault(number, []).append(bits(found))
            return found

        monkeypatch.setattr(RunDirectory, "save", saving)
        monkeypatch.setattr(Question, "decode", decoding)


def rows(run: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def start_of(recipe: Recipe) -> dict[str, bytes]:
    return bits(workspace_of(prepare(recipe)).whole)


@pytest.mark.parametrize(
    "sets",
    [
        ("training.probe_rounds=2",),
        ("strategy.name=fedavgm", "strategy.averaging=ema", "training.adapter_dtype=bfloat16"),
        ("lora.train=alternate", "training.personal=true", "training.proximal=0.1"),
    ],
)
def test_what_sites_begin_with_is_what_the_coordinator_kept_bit_for_bit(
    sets: tuple[str, ...], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(folder, *INT8, *sets)
    seen = Seen(monkeypatch)
    run = RunDirectory.create(tmp_path / "run", recipe)
    simulate(recipe, run)
    kept = {0: start_of(recipe), **seen.saved}
    assert set(seen.begun) == {1, 2, 3, 4}
    for number, begun in seen.begun.items():
        assert begun == [kept[number - 1]] * 2, number
    # Also what is scored and delivered is the adapter that was sent, not the one before rounding.
    assert bits(run.last().adapter) == seen.saved[4]


def test_probe_rounds_send_the_head_alone_and_the_first_round_nothing(
    folder: Path, tmp_path: Path
) -> None:
    short = small_recipe(folder, *INT8, "training.probe_rounds=2")
    whole = small_recipe(folder, "training.probe_rounds=2", "federation.num_rounds=4")
    for name, recipe in (("short", short), ("whole", whole)):
        simulate(recipe, RunDirectory.create(tmp_path / name, recipe))
    workspace = workspace_of(prepare(short)).whole
    head = workspace.select(name for name in workspace if name.startswith("head."))
    header, scales, sites = 75, 4, 2
    down = [row["bytes_down"] for row in rows(tmp_path / "short")]
    one = header + head.size + scales * len(head)
    all_of_it = header + workspace.size + scales * len(workspace)
    assert down == [sites * header, sites * one, sites * one, sites * all_of_it]
    up = [row["bytes_up"] for row in rows(tmp_path / "short")]
    assert up == [sites * one] * 2 + [sites * all_of_it] * 2
    assert min(row["bytes_down"] for row in rows(tmp_path / "whole")) > 4 * sites * all_of_it


def test_a_run_that_was_killed_goes_on_with_equal_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between rounds and in the middle of one: the question is built again from what was kept."""
    recipe = small_recipe(folder, *INT8, "training.probe_rounds=1")
    seen = Seen(monkeypatch)
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1
        if steps == 2 * 2 * 2 + 2 + 1:  # in the second site's first step of round 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(
            recipe, RunDirectory.create(tmp_path / "run", recipe), "local", Events(on_step=on_step)
        )
    simulate(recipe, RunDirectory.reopen(tmp_path / "run"))
    kept = {0: start_of(recipe), **seen.saved}
    for number, begun in seen.begun.items():
        assert all(one == kept[number - 1] for one in begun), number
    # Asked again for the round, the first site sent what its ledger had released, and drew nothing:
    # its ledger knows the question by its bytes, which were equal.
    (east,) = (p for p in RunDirectory(tmp_path / "run").ledgers().items() if p[0] == "east")
    entries = [e.fields for e in LedgerFile(east[1]).entries() if e.fields.get("round") == 3]
    assert len({e["request"] for e in entries if "request" in e}) == 1
