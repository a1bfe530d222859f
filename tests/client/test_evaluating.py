"""A site's private evaluation, asked as its coordinator asks: its moment, its bytes, its charge."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.client.round import answer
from cloister.client.site import Site
from cloister.data.unit_hash import side_digests
from cloister.errors import (
    AdapterFormatError,
    LedgerError,
    RefusedError,
    RoundSpentError,
    UsageError,
)
from cloister.ledger.storage import LedgerFile
from cloister.models.network import Network
from cloister.models.state import read_tensors
from cloister.protocol.exchange import RoundReply, RoundRequest, Status, Step
from cloister.recipe import Recipe
from cloister.simulation.study import prepare, workspace_of
from cloister.tasks.tally.chosen import statistics_of, tally_of
from cloister.tasks.task import Task
from cloister.training.held_out_sum import held_out_sum, released_shapes
from cloister.training.units import UnitExamples
from tests.client.test_optimizer_memory import again, opened
from tests.support.studies import small_recipe

SETTINGS = [
    "training.local_steps=1",
    "federation.num_rounds=4",
    "data.public_records=80",
    "data.held_out_share=0.4",
    "privacy.evaluation_rounds=[2,4]",
    "privacy.evaluation_noise_multiplier=2.0",
]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(tmp_path / "study", *SETTINGS)


def ask(site: Site, recipe: Recipe, number: int, step: Step = Step.TRAIN) -> RoundReply:
    workspace = workspace_of(prepare(recipe))
    request = RoundRequest(site.study, number, encode(workspace.whole), step=step)
    return answer(site, workspace, request, lambda: None)


def test_held_out_units_are_scored_and_no_unit_is_on_both_sides(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[object] = []
    with_these: list[bytes] = []

    def noted(network: Network, task: Task, units: Sequence[UnitExamples], length: int) -> object:
        scored.append(units)
        with_these.append(encode(read_tensors(network, sorted(workspace.whole))))
        return held_out_sum(network, task, units, length)

    monkeypatch.setattr("cloister.client.evaluating.held_out_sum", noted)
    site, study = opened(recipe, tmp_path / "run"), prepare(recipe)
    trained = set(side_digests(study.sites["east"]))
    apart = set(side_digests(study.held_out["east"]))
    assert trained
    assert apart
    assert not trained & apart
    assert site.held_out is not None
    assert len(site.units) + len(site.held_out) == 40
    workspace = workspace_of(study)
    ask(site, recipe, 1)  # the network is then at the end of the site's local steps
    reply = ask(site, recipe, 2, Step.EVALUATE)
    assert reply.status is Status.TRAINED
    assert scored == [site.held_out]
    assert with_these == [encode(workspace.whole)]
    shapes = released_shapes(workspace.task)
    noised = decode(reply.delta, shapes)["statistics"].astype(float)
    exact = held_out_sum(workspace.network, workspace.task, site.held_out, 16)
    noise = noised - exact.tensors[0].double().numpy() * exact.grid
    # 48 values of deviation 2: their mean square is 4 ± 0.82, and lies within six such.
    assert len(noise) == 2 + 1 + 9 + 30
    assert 0.3 < np.mean(noise**2) / 4.0 < 2.3
    scales = statistics_of(tally_of(workspace.task)).scales
    assert noised.shape == scales.shape


def test_asked_again_the_same_bytes_leave_and_one_evaluation_is_charged(
    recipe: Recipe, tmp_path: Path
) -> None:
    site = opened(recipe, tmp_path / "run")
    first = ask(site, recipe, 2, Step.EVALUATE)
    head, steps = site.ledger.head, site.ledger.steps
    assert ask(again(recipe, tmp_path / "run"), recipe, 2, Step.EVALUATE) == first
    assert ask(site, recipe, 3).status is Status.TRAINED
    assert ask(again(recipe, tmp_path / "run"), recipe, 2, Step.EVALUATE) == first
    assert (steps, site.ledger.steps) == (1, 2)
    assert site.ledger.head != head


def test_a_kill_after_the_charge_leaves_the_evaluation_spent(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = opened(recipe, tmp_path / "run")
    with monkeypatch.context() as patch:

        def cut_off(*_: object) -> None:
            raise OSError("cut off")

        patch.setattr("cloister.client.evaluating.held_out_sum", cut_off)
        with pytest.raises(RoundSpentError):
            ask(site, recipe, 2, Step.EVALUATE)
    with pytest.raises(RoundSpentError):
        ask(again(recipe, tmp_path / "run"), recipe, 2, Step.EVALUATE)
    assert ask(site, recipe, 3).status is Status.TRAINED


def test_what_is_not_declared_or_too_late_is_refused_and_nothing_charged(
    recipe: Recipe, tmp_path: Path
) -> None:
    site = opened(recipe, tmp_path / "run")
    for number in (0, 1, 3, 5):
        with pytest.raises(RefusedError, match="the plan does not list"):
            ask(site, recipe, number, Step.EVALUATE)
    workspace = workspace_of(prepare(recipe))
    huge = Adapter({n: np.full_like(a, 1e9) for n, a in workspace.whole.items()})
    for content, error in ((encode(huge), RefusedError), (b"no adapter", AdapterFormatError)):
        request = RoundRequest(site.study, 2, content, step=Step.EVALUATE)
        with pytest.raises(error):
            answer(site, workspace, request, lambda: None)
    sound = RoundRequest(site.study, 2, encode(workspace.whole), step=Step.EVALUATE)
    rolled_back = replace(sound, seen="ab" * 32)  # an entry that the ledger lacks
    with pytest.raises(LedgerError, match="an older copy was restored"):
        answer(site, workspace, rolled_back, lambda: None)
    accept = replace(site.policy.accept, max_message_bytes=len(sound.adapter) - 1)
    narrow = replace(site, policy=replace(site.policy, accept=accept))
    with pytest.raises(RefusedError, match=r"accept\.max_message_bytes"):
        answer(narrow, workspace, sound, lambda: None)
    assert site.ledger.steps == 0
    ask(site, recipe, 3)
    with pytest.raises(RefusedError, match="a later round was charged already"):
        ask(site, recipe, 2, Step.EVALUATE)
    ask(site, recipe, 4, Step.EVALUATE)
    with pytest.raises(RefusedError, match="was evaluated already"):
        ask(site, recipe, 4)
    assert site.ledger.steps == 2


def test_the_charge_says_where_units_of_the_file_were_coupled(
    recipe: Recipe, tmp_path: Path
) -> None:
    site = replace(opened(recipe, tmp_path / "run"), couples_units=True)
    ask(site, recipe, 2, Step.EVALUATE)
    entries = LedgerFile(tmp_path / "run" / "ledgers" / "east.ledger").entries()
    charged = [one.fields for one in entries if one.fields["kind"] == "reserve"]
    assert [one.get("couples_units") for one in charged] == [True]


def test_a_study_without_evaluations_answers_none(tmp_path: Path) -> None:
    plain = small_recipe(tmp_path / "study")
    site = opened(plain, tmp_path / "run")
    assert site.held_out is None
    with pytest.raises(RefusedError, match="the plan does not list"):
        ask(site, plain, 2, Step.EVALUATE)


def test_without_held_out_units_nothing_begins(tmp_path: Path) -> None:
    left_out = [one for one in SETTINGS if not one.startswith("data.held_out_share")]
    with pytest.raises(UsageError, match=r"data\.held_out_share: missing"):
        prepare(small_recipe(tmp_path / "study", *left_out))
