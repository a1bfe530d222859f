"""The benchmark's parts beside the measuring: peers that are absent, commands, page, plots."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import exchange, peer_simulations, peer_steps, peers
from benchmarks.figure import Figure
from benchmarks.page import page_of
from benchmarks.peer_simulations import LOCAL, RAY, STOCK, Work, command_of
from benchmarks.peer_steps import Absent, fastdp_engine
from benchmarks.peers import Peers, Side
from benchmarks.process_tree import Used, used_by
from benchmarks.turns import Taken, in_turns
from cloister.data.records import TextRecord
from cloister.recipe import parse_recipe


def test_fastdp_that_is_not_given_or_not_there_is_said(tmp_path: Path) -> None:
    found = fastdp_engine(None)
    assert isinstance(found, Absent)
    assert "--fastdp FOLDER" in found.why
    found = fastdp_engine(tmp_path)
    assert isinstance(found, Absent)
    assert "no package fastDP" in found.why


def test_a_checkout_of_fastdp_that_cannot_be_imported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "fastDP", raising=False)
    (tmp_path / "fastDP").mkdir()
    (tmp_path / "fastDP" / "__init__.py").write_text("import no_such_library\n")
    before = list(sys.path)
    found = fastdp_engine(tmp_path)
    assert isinstance(found, Absent)
    assert "no_such_library" in found.why
    assert sys.path == before


def test_a_checkout_of_fastdp_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fastDP", raising=False)
    (tmp_path / "fastDP").mkdir()
    (tmp_path / "fastDP" / "__init__.py").write_text("class PrivacyEngine: made = True\n")
    found: Any = fastdp_engine(tmp_path)
    assert found.made
    monkeypatch.delitem(sys.modules, "fastDP")


def test_a_fastdp_whose_step_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: object) -> None:
        raise AttributeError("no position_embedding_type")

    monkeypatch.setattr(peer_steps, "fastdp_engine", lambda checkout: None)
    monkeypatch.setattr(peer_steps, "_fastdp_step", failing)
    found: Any = peer_steps.fastdp(None, "longest", tmp_path)  # type: ignore[arg-type]
    assert found.why == (
        "its step fails with these libraries (AttributeError: no position_embedding_type)"
    )


def test_variants_take_turns_after_one_to_warm_up() -> None:
    order: list[str] = []
    taken = in_turns({name: lambda name=name: order.append(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert order == ["a", "b"] * 4
    assert len(taken["a"].cpu_seconds) == 3


def test_a_ratio_is_the_median_of_the_turns_ratios() -> None:
    one, two = Taken((2.0, 9.0, 4.0), (0.0,) * 3), Taken((1.0, 1.0, 2.0), (0.0,) * 3)
    assert one / two == 2.0  # 2, 9 and 2: not the medians' ratio, 4


# 30 records of two classes, the first 20 of one: as files that are sorted by class.
RECORDS = [TextRecord(f"note {n}", "a" if n < 20 else "b") for n in range(30)]


def test_our_simulation_has_the_stock_one_s_work(tmp_path: Path) -> None:
    words = command_of(LOCAL, Work("texts.jsonl", 10, 5, 2), RECORDS, tmp_path)
    recipe = parse_recipe("", [words[i + 1] for i, word in enumerate(words) if word == "--set"])
    assert (recipe.data.sites, recipe.federation.num_rounds) == (10, 5)
    assert recipe.privacy.enabled is False
    # Of the 3 records of a site 2 on average, as the stock client takes 2.
    assert (recipe.data.public_records, recipe.training.expected_batch_size) == (3, 2)
    assert recipe.task.labels == ("a", "b")
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert rows == [{"text": one.text, "label": one.label} for one in RECORDS]
    assert "ray" in command_of(RAY, Work("texts.jsonl", 10, 5), RECORDS, tmp_path)
    stock = command_of(STOCK, Work("texts.jsonl", 10, 5, 2), RECORDS, tmp_path)
    assert stock[1:] == ["-m", "benchmarks.flower_stock", "texts.jsonl", "10", "5", "2"]


def test_a_site_with_less_than_a_batch_takes_all_it_has(tmp_path: Path) -> None:
    words = command_of(LOCAL, Work("texts.jsonl", 10, 5, 64), RECORDS, tmp_path)
    assert "training.expected_batch_size=3" in words
    assert "data.public_records=3" in words


def test_simulations_take_turns_and_without_ray_only_ours_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f'{{"text": "{n}", "label": "a"}}\n' for n in range(10)))
    work = Work(str(texts), 10, 5)
    ran: list[str] = []

    def run(command: list[str]) -> Used:
        ran.append("stock" if "benchmarks.flower_stock" in command else command[-1])
        return Used(2.0 if "benchmarks.flower_stock" in command else 1.0, 1.0, 10)

    found, absent = peer_simulations.measured(work, 2, run)
    assert len(ran) == 6
    assert absent == {}
    figures = {one.name: one.value for one in peer_simulations.figures(10, found)}
    assert figures[f"{STOCK} ÷ ours (local), 10 sites: CPU"] == 2.0
    monkeypatch.setattr(peer_simulations.importlib.util, "find_spec", lambda name: None)
    found, absent = peer_simulations.measured(work, 1, run)
    assert set(found) == {LOCAL}
    assert set(absent) == {STOCK, RAY}
    assert list(peer_simulations.figures(10, found)) == []


def test_what_a_command_used_has_its_children_in_it() -> None:
    # It rests at its end: on a busy machine too it is looked at once more after its work.
    child = (
        "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
        "time.sleep(1)"
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    used = used_by([sys.executable, "-c", program])
    assert used.wall > used.cpu > 0.25  # less two ticks of 10 ms
    with pytest.raises(RuntimeError, match="ended with 3: so"):
        used_by([sys.executable, "-c", "import sys; sys.stderr.write('so'); sys.exit(3)"])


def test_the_quick_run_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {name: Taken((goal,), (1.0,)) for name, goal in peer_steps.GOALS.items()}
    taken[peer_steps.OURS] = Taken((1.0,), (1.0,))
    monkeypatch.setattr(peer_steps, "measured", lambda *given: (taken, {"fastDP": "absent"}))
    monkeypatch.setattr(exchange, "figures", lambda: iter([Figure("bytes", 4.0, 4.0, "at least")]))
    made = Peers()
    yielded = list(peers.measured(made, ["texts"], 5, None, is_quick=True))
    assert yielded == made.figures
    assert made.not_run == {
        "fastDP": "absent",
        "whole simulations": "left out of the quick run; make bench has them",
    }
    assert {side.name for side in made.sides} == set(taken)


def test_the_page_has_every_figure_side_and_plot_and_loads_nothing() -> None:
    document = {
        "machine": {"processor": "<one>", "cores": 2, "load": [1.0, 2.0, 3.0]},
        "load_after": [4.0, 5.0, 6.0],
        "figures": [
            vars(Figure("Opacus ÷ ours", 4.0, 5.0, "at least")),
            vars(Figure("memory", 1.0, 1.1, "at most")),
        ],
        "peers": [vars(Side("step", "Opacus", 4.0, 5.0, 7_000_000))],
        "not_run": {"fastDP": "no checkout"},
    }
    text = page_of(json.loads(json.dumps(document)))
    assert "&lt;one&gt;" in text
    assert "4.0, 5.0, 6.0" in text
    assert "MISSED" in text
    assert text.count("<svg") == 2
    for part in ("no checkout", "≥ 5", "≤ 1.1", "A coordinator's round"):
        assert part in text or part.replace("'", "&#x27;") in text
    for word in ("<script", "@import", "src="):
        assert word not in text
