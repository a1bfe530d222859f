"""Studies whose sites share the noise under secure aggregation, end to end in one process."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.client.round import answer
from cloister.client.secure import SecureExchange
from cloister.errors import (
    AdapterFormatError,
    CloisterError,
    QuorumError,
    RecipeError,
    RefusedError,
)
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy import mechanism
from cloister.privacy.noise import NoisedSum
from cloister.protocol.exchange import RoundRequest, Step
from cloister.recipe import Recipe
from cloister.server import secure
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import SimulatedSites, plan_of, prepare, workspace_of
from cloister.strategies.build import make_strategy
from tests.support.ledgers import odometer
from tests.support.studies import NOTES, small_recipe

SITES = 4
SHARED = ["privacy.noise=shared", "privacy.missing_sites=1"]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "shared-noise"


def recipe_of(folder: Path, *assignments: str) -> Recipe:
    return small_recipe(
        folder,
        f"data.sites={SITES}",
        "data.partition=iid",
        "data.public_records=20",
        "training.mode=gradient-rounds",
        "training.local_steps=1",
        "federation.num_rounds=3",
        "training.expected_batch_size=5",
        *assignments,
    )


def run(recipe: Recipe, folder: Path, notes: list[str] | None = None) -> RunDirectory:
    """Runs or goes on with a study."""
    place = RunDirectory.create(folder, recipe) if not folder.exists() else RunDirectory(folder)
    simulate(recipe, place, events=Events(on_stage=(notes if notes is not None else []).append))
    return place


def final(place: RunDirectory, recipe: Recipe) -> Adapter:
    start = workspace_of(prepare(recipe)).whole
    before = make_strategy(recipe.strategy, ()).init(start)
    return place.load(before, prepare(recipe).recipe.digest()).adapter


def failing(monkeypatch: pytest.MonkeyPatch, when: Callable[[str, Step, int], bool]) -> None:
    """Sites that fail at one exchange."""
    whole = SecureExchange.answer

    def broken(self: SecureExchange, step: Step, *rest: object) -> object:
        if when(self.site, step, self.number):
            raise AdapterFormatError("planted")
        return whole(self, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SecureExchange, "answer", broken)


def test_a_study_closes_its_rounds_within_epsilon_and_bytes(folder: Path, tmp_path: Path) -> None:
    recipe = recipe_of(folder, *SHARED, "privacy.epsilon=3.0")
    place = run(recipe, tmp_path / "run")
    rows = place.metrics()
    assert [row["round"] for row in rows] == [1, 2, 3]
    size = workspace_of(prepare(recipe)).start.size
    for row in rows:
        assert not row["refused"]
        assert not row["missing"]
        # Keys, boxes, signatures and shares of four sites are 1 kB; the values 4 bytes each.
        assert 4 * size < row["bytes_up"] / SITES < 4 * size + 1200
    for name in prepare(recipe).names:
        ledger = Ledger(place.ledger(name))
        assert 2.9 < odometer(ledger, 1e-5) <= 3.0
        assert verify(LedgerFile(place.ledger(name)).entries(), name).charges == 3
    card = (place.adapter / "README.md").read_text()
    assert "secure aggregation" in card


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise taken out, of sums in clear and of shares."""
    monkeypatch.setattr(
        mechanism,
        "discrete_gaussian",
        lambda deviation, count, entropy: np.zeros(count, dtype=np.int64),
    )
    monkeypatch.setattr(
        mechanism,
        "add_noise",
        lambda clipped, noise, entropy: NoisedSum(
            tuple(t.double().mul(clipped.grid).float() for t in clipped.tensors)
        ),
    )


def test_without_noise_the_sum_is_the_mean_of_the_sites(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batches, clipped, noise taken out: masked integers against updates in clear."""
    quiet(monkeypatch)
    monkeypatch.setattr(
        mechanism, "poisson_sample", lambda count, rate, entropy: np.arange(0, count, 2)
    )
    options = ["strategy.name=fedavgm", "training.learning_rate=2.0"]
    in_clear, shared = recipe_of(folder, *options), recipe_of(folder, *options, *SHARED)
    one = final(run(in_clear, tmp_path / "clear"), in_clear)
    other = final(run(shared, tmp_path / "shared"), shared)
    start = workspace_of(prepare(shared)).whole
    assert (one - start).norm() > 0.1
    assert (one - other).norm() <= 1e-5


def test_the_noise_of_the_mean_is_what_the_fewest_honest_sites_add(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty batches: an update is its noise; K shares of σ/√h each over K · batch."""
    monkeypatch.setattr(mechanism, "poisson_sample", lambda count, rate, entropy: np.arange(0))
    recipe = recipe_of(folder, *SHARED, "federation.num_rounds=1", "training.learning_rate=1.0")
    place = run(recipe, tmp_path / "run")
    start = workspace_of(prepare(recipe)).whole
    moved = final(place, recipe) - start
    plan = plan_of(prepare(recipe), prepare(recipe).names[0])
    assert plan.max_grad_norm is not None
    honest = SITES - 1 - 1
    wanted = plan.noise_multiplier * plan.max_grad_norm * math.sqrt(SITES / honest) / (SITES * 5)
    size = moved.size
    assert moved.norm() / math.sqrt(size) == pytest.approx(wanted, rel=6 / math.sqrt(2 * size))


@pytest.mark.parametrize(
    "step",
    [Step.MASK, *(pytest.param(s, marks=pytest.mark.nightly) for s in (Step.SIGN, Step.REVEAL))],
)
def test_a_site_that_drops_out_of_a_round_is_there_in_the_next(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    recipe = recipe_of(folder, *SHARED)
    lost = prepare(recipe).names[1]
    failing(monkeypatch, lambda site, at, number: (site, at, number) == (lost, step, 2))
    rows = run(recipe, tmp_path / "run").metrics()
    assert [len(row["received"]) for row in rows] == [4, 3 if step is Step.MASK else 4, 4]
    assert all(row["update_norm"] > 0 for row in rows)


def test_a_site_that_never_advertises_is_left_out_of_the_epoch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(folder, *SHARED)
    lost = prepare(recipe).names[3]
    failing(monkeypatch, lambda site, at, number: (site, at) == (lost, Step.ADVERTISE))
    rows = run(recipe, tmp_path / "run").metrics()
    assert [row["missing"] for row in rows] == [[lost]] * 3
    assert all(row["update_norm"] > 0 for row in rows)


@pytest.mark.parametrize("step", [pytest.param(Step.SIGN, marks=pytest.mark.nightly), Step.REVEAL])
def test_below_the_threshold_nothing_is_unmasked_and_the_round_is_skipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    recipe = recipe_of(folder, *SHARED)
    lost = prepare(recipe).names[:2]
    failing(monkeypatch, lambda site, at, number: site in lost and (at, number) == (step, 2))
    notes: list[str] = []
    place = run(recipe, tmp_path / "run", notes)
    assert [row["update_norm"] > 0 for row in place.metrics()] == [True, False, True]
    assert any("nothing is unmasked" in note for note in notes)
    assert all(Ledger(place.ledger(name)).steps == 3 for name in prepare(recipe).names)


def test_too_few_masked_updates_end_the_run_which_can_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(folder, *SHARED)
    lost = prepare(recipe).names[:2]
    with monkeypatch.context() as patch:
        failing(patch, lambda site, at, number: site in lost and (at, number) == (Step.MASK, 2))
        with pytest.raises(CloisterError):
            run(recipe, tmp_path / "run")
    place = run(recipe, tmp_path / "run")
    rows = place.metrics()
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert rows[2]["update_norm"] > 0
    for name in prepare(recipe).names:
        assert Ledger(place.ledger(name)).steps <= 3


@pytest.mark.parametrize("at", ["unmasked_sum", "after the keys are gone"])
def test_a_coordinator_that_dies_in_a_round_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Within one epoch the sites send the same masked bytes again; under new keys the round is
    spent and skipped."""
    from cloister.simulation import study

    recipe = recipe_of(folder, *SHARED)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(secure, "unmasked_sum", dies)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "run")
    if at != "unmasked_sum":
        study._epoch_keys.cache_clear()
    place = run(recipe, tmp_path / "run")
    moved = [row["update_norm"] > 0 for row in place.metrics()]
    assert moved == [at == "unmasked_sum", True, True]
    for name in prepare(recipe).names:
        ledger = Ledger(place.ledger(name))
        assert ledger.steps == 3
        assert verify(LedgerFile(place.ledger(name)).entries(), name).charges == 3


def test_a_site_lets_no_update_out_in_clear(folder: Path, tmp_path: Path) -> None:
    recipe = recipe_of(folder, *SHARED)
    place = RunDirectory.create(tmp_path / "run", recipe)
    begin_ledgers(prepare(recipe), place)
    context = Context(0, 0, {"partition-id": 0}, RecordDict(), {})
    site, workspace = SimulatedSites(recipe, place.path / "ledgers")(context)
    request = RoundRequest(site.study, 1, encode(workspace.whole))
    with pytest.raises(RefusedError, match="only under a mask"):
        answer(site, workspace, request, lambda: None)
    for body in (b"", b"[]", b"{}", json.dumps({"epoch": 1}).encode()):
        with pytest.raises(AdapterFormatError, match="question"):
            answer(
                site,
                workspace,
                RoundRequest(site.study, 1, encode(workspace.whole), Step.MASK, body),
                lambda: None,
            )
    assert Ledger(place.ledger(site.name)).steps == 0


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("training.mode=local-steps", "training.mode"),
        ("strategy.name=median", "strategy.name"),
        ("strategy.weights=[1, 1, 1, 2]", "strategy.weights"),
        ("privacy.missing_sites=2", "more than 2"),
        ("training.update_dtype=int8", "secure_bits"),
        ("federation.min_sites=2", "min_sites"),
        ("lora.train=b-kept", "lora"),
        ("data.public_records=[20, 20, 20, 15]", "have the same plan"),
    ],
)
def test_a_recipe_with_what_does_not_go_together_is_refused(
    folder: Path, assignment: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe_of(folder, *SHARED, assignment)


def test_when_budgets_are_spent_the_run_ends_with_what_it_has(folder: Path, tmp_path: Path) -> None:
    whole = recipe_of(folder, *SHARED)
    plan = plan_of(prepare(whole), prepare(whole).names[0])
    some = plan.epsilon_after(2) * 1.001
    recipe = recipe_of(
        folder,
        *SHARED,
        f"privacy.noise_multiplier={plan.noise_multiplier}",
        f"privacy.site_budgets={[some] * SITES}",
    )
    notes: list[str] = []
    place = run(recipe, tmp_path / "run", notes)
    assert 0 < len(place.metrics()) < 3
    assert any("budget" in note for note in notes)


def test_sixteen_bits_take_half_the_bytes(folder: Path, tmp_path: Path) -> None:
    recipe = recipe_of(folder, *SHARED, "privacy.secure_bits=16", "federation.num_rounds=1")
    size = workspace_of(prepare(recipe)).start.size
    (row,) = run(recipe, tmp_path / "run").metrics()
    assert 2 * size < row["bytes_up"] / SITES < 2 * size + 1200


@pytest.mark.parametrize("bits", [16, 32])
def test_records_of_one_label_wrap_no_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    """Every gradient pulls the bias one way: at 16 bits it is cut, and never turned round."""
    quiet(monkeypatch)
    monkeypatch.setattr(
        mechanism, "poisson_sample", lambda count, rate, entropy: np.arange(0, count, 4)[:5]
    )
    options = ["strategy.name=fedavg", "training.learning_rate=1.0", "federation.num_rounds=1"]
    folder = tmp_path / "study"
    in_clear = recipe_of(folder, *options)
    shared = recipe_of(folder, *options, *SHARED, f"privacy.secure_bits={bits}")
    rows = [{"text": NOTES["cardiology"][i % 3], "label": "cardiology"} for i in range(80)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = workspace_of(prepare(shared)).whole
    one = final(run(in_clear, tmp_path / "clear"), in_clear) - start
    other = final(run(shared, tmp_path / "shared"), shared) - start
    if bits == 32:
        assert (one - other).norm() <= 1e-5 * one.norm()
        return
    plan = plan_of(prepare(shared), prepare(shared).names[0])
    noise = plan.shared_noise(start.size)
    most = noise.room * noise.grid / 5  # of a mean over sites, at rate 1
    assert max(float(abs(values).max()) for values in one.values()) > most  # it would have wrapped
    for name, values in one.items():
        cut = np.clip(values, -most, most)
        assert abs(other[name] - cut).max() <= 5e-3 * one.norm()  # half of MOST_LENGTHENING's grid


def test_quorum_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(folder, *SHARED)
    lost = prepare(recipe).names[:2]
    failing(monkeypatch, lambda site, at, number: site in lost)
    with pytest.raises((QuorumError, AdapterFormatError)):
        run(recipe, tmp_path / "run")
