"""One unit moves the clipped sum by at most the bound, at sites of 1, 10 and 300 units.

Every path that adds noise: at a site, on the shared grid of a secure sum, and at the coordinator.
The bound must be the declared one at each of them, whatever the sites' sizes are.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.data.records import TextRecord
from cloister.privacy import mechanism
from cloister.privacy.central import CentralPlan
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.plan import Plan
from cloister.privacy.sharing import Sharing
from cloister.privacy.units import Unit
from cloister.server.central import CentralSum
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.strategy import ServerState
from cloister.tasks.task import Example
from cloister.training.config import TrainingConfig
from cloister.training.local import local_update
from cloister.training.proof import prove
from cloister.training.shapes import BatchShapes
from cloister.training.shared import shared_gradient
from cloister.training.units import encode_units, singles
from cloister.training.workspace import Workspace
from tests.support.studies import NOTES, small_workspace

SIZES = (1, 10, 300)
BOUND, BATCH, RATE = 0.1, 7, 2.0
PLAN = Plan(
    public_records=70,
    expected_batch_size=BATCH,
    local_steps=1,
    num_rounds=3,
    noise_multiplier=1.0,
    max_grad_norm=BOUND,
    max_update_norm=1e6,
    delta=1e-5,
)
CONFIG = TrainingConfig(
    mode="gradient-rounds", expected_batch_size=BATCH, learning_rate=RATE, schedule="constant"
)


@cache
def prepared(bert: Path) -> tuple[Workspace, tuple[Example, ...], BatchShapes]:
    """A workspace, its records, and the shapes that this machine proves: hundreds go together."""
    workspace = small_workspace(bert)
    # Of two labels, unevenly, so that gradients do not cancel.
    notes = [(text, label) for label in ("cardiology", "dermatology") for text in NOTES[label]]
    records = [TextRecord(*notes[(index * index) % 5]) for index in range(max(SIZES))]
    return workspace, tuple(workspace.encode(records)), prove(workspace, PLAN, CONFIG).shapes


@pytest.fixture(autouse=True)
def all_drawn_and_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noised, as it is: every unit in the batch, noise of nothing added to it."""
    monkeypatch.setattr(mechanism, "poisson_sample", lambda count, rate, entropy: np.arange(count))
    monkeypatch.setattr(
        mechanism,
        "discrete_gaussian",
        lambda deviation, count, entropy: np.zeros(count, dtype=np.int64),
    )
    whole = mechanism.add_noise
    monkeypatch.setattr(mechanism, "add_noise", lambda clipped, noise, e: whole(clipped, 0.0, e))


def update(bert: Path, units: int, plan: Plan = PLAN) -> Adapter:
    """What a site with so many units sends."""
    workspace, examples, shapes = prepared(bert)
    return local_update(
        workspace.network,
        workspace.task,
        singles(examples[:units]),
        workspace.start,
        plan,
        CONFIG,
        round_number=1,
        entropy=OsEntropy(),
        shapes=shapes,
    )


@pytest.mark.parametrize("units", SIZES)
def test_one_unit_moves_a_site_s_update_by_its_bound_over_the_declared_batch(
    bert: Path, units: int
) -> None:
    apart = (update(bert, units) - update(bert, units - 1)).norm()
    # What is noised moves by the bound; 10⁻⁵ is the float32 of a step that sums 300 units.
    assert 0.5 * RATE * BOUND / BATCH < apart <= RATE * BOUND / BATCH * (1 + 1e-5)


COPIES = 3


def with_copies(count: int, changed: int | None = None) -> list[TextRecord]:
    """Records with copies, those of a record apart; the last one has other words and another label.

    Args:
        count: How many records.
        changed: One that is another record, with all its rows.
    """
    notes = [(text, label) for label in ("cardiology", "dermatology") for text in NOTES[label]]
    rows = []
    for number in range(COPIES + 1):
        for place in range(count):
            text, label = notes[(place * place + (3 if place == changed else 0)) % len(notes)]
            rows.append(TextRecord(f"{text} " * (1 + number), label, unit=f"u{place}"))
    return rows


def update_of(bert: Path, records: list[TextRecord]) -> Adapter:
    """What a site with these records sends, by the code that it runs from records to release."""
    workspace, _, shapes = prepared(bert)
    units = encode_units(records, workspace.task, Unit.RECORD, COPIES + 1).units
    plan = replace(PLAN, max_records=COPIES + 1)
    return local_update(
        workspace.network,
        workspace.task,
        units,
        workspace.start,
        plan,
        CONFIG,
        round_number=1,
        entropy=OsEntropy(),
        shapes=shapes,
    )


def test_a_record_with_its_copies_moves_the_sum_as_far_as_a_record_alone(bert: Path) -> None:
    """C where it is added, removed or zeroed; 2 C where another record takes its place.

    No gradient here is below the bound: what is measured is the bound's, and not the data's.
    """
    count, limit = 5, RATE * BOUND / BATCH
    whole = update_of(bert, with_copies(count))
    gone = [row for row in with_copies(count) if row.unit != "u1"]
    removed = (whole - update_of(bert, gone)).norm()
    assert 0.5 * limit < removed <= limit * (1 + 1e-5)
    zeroed = [
        replace(row, label="none of these") if row.unit == "u1" else row
        for row in with_copies(count)
    ]
    assert (whole - update_of(bert, zeroed)).norm() == pytest.approx(removed, rel=1e-5)
    replaced = (whole - update_of(bert, with_copies(count, changed=1))).norm()
    assert limit < replaced <= 2 * limit * (1 + 1e-5)


def test_copies_as_units_of_their_own_move_it_further(bert: Path) -> None:
    """So that the test above can fail: what reads no `cloister_unit` charges too little."""
    count, limit = 5, RATE * BOUND / BATCH
    rows = [replace(row, unit=None) for row in with_copies(count)]
    left = [row for place, row in enumerate(rows) if place % count != 1]
    apart = (update_of(bert, rows) - update_of(bert, left)).norm()
    assert apart > 2 * limit


@pytest.mark.parametrize("units", SIZES)
@pytest.mark.parametrize("bits", [16, 32])
def test_one_unit_moves_a_masked_sum_by_its_bound_in_steps_of_the_grid(
    bert: Path, units: int, bits: int
) -> None:
    """Three hundred gradients where seven are expected do not fit: what is cut moves no further."""
    workspace, examples, shapes = prepared(bert)
    plan = replace(PLAN, sharing=Sharing(sites=3, missing=0, colluding=1, bits=bits))

    def total(count: int) -> np.ndarray:  # type: ignore[type-arg]
        return shared_gradient(
            workspace.network,
            workspace.task,
            singles(examples[:count]),
            workspace.start,
            plan,
            CONFIG,
            entropy=OsEntropy(),
            shapes=shapes,
        )

    noise = plan.shared_noise(workspace.start.size)
    one, other = total(units), total(units - 1)
    apart = float(np.linalg.norm(one - other)) * noise.grid
    assert apart <= BOUND * (1 + 1e-9)
    assert np.abs(one).max() <= noise.room
    if units < max(SIZES):
        assert apart > 0.5 * BOUND


def test_one_unit_moves_the_mean_of_all_sites_alike_wherever_it_is(bert: Path) -> None:
    """Sites are not weighed by their size: a unit of the largest counts as one of the smallest."""
    sizes = {f"site-{units}": units for units in SIZES}

    def moved(counts: Mapping[str, int]) -> Adapter:
        came = {site: update(bert, count) for site, count in counts.items()}
        workspace, *_ = prepared(bert)
        return FedAvg({}).aggregate(ServerState(workspace.start), came).adapter

    whole = moved(sizes)
    for site, units in sizes.items():
        apart = (whole - moved({**sizes, site: units - 1})).norm()
        most = RATE * BOUND / BATCH / len(SIZES)
        assert 0.5 * most < apart <= most * (1 + 1e-4)  # adapters are float32


def test_a_whole_site_moves_the_coordinator_s_sum_by_the_update_bound(bert: Path) -> None:
    """Whatever its size: its update is clipped, the divisor is the declared number of sites."""
    bound, sites = 0.05, 4
    plan = replace(PLAN, max_update_norm=bound)
    came = {f"site-{units}": update(bert, units, plan) for units in SIZES}
    assert max(one.norm() for one in came.values()) == pytest.approx(bound, rel=1e-5)
    assert min(one.norm() for one in came.values()) < bound

    def mean(names: list[str]) -> Adapter:
        total = CentralSum(
            CentralPlan(
                sites=sites,
                rounds=3,
                max_update_norm=bound,
                noise_multiplier=0.0,
                delta=1e-6,
            )
        )
        for name in names:
            total.add(name, came[name])
        return total.mean(OsEntropy())

    for gone in came:
        left = [name for name in came if name != gone]
        assert (mean(list(came)) - mean(left)).norm() <= bound / sites * (1 + 1e-6)


def test_a_mean_weighed_by_size_breaks_it(bert: Path) -> None:
    """So that the tests above can fail: what libraries weigh updates by is private."""
    sizes = dict(zip(("a", "b", "c"), SIZES, strict=True))
    came = {site: update(bert, units) for site, units in sizes.items()}
    workspace, *_ = prepared(bert)
    start = ServerState(workspace.start)
    without = {**came, "b": update(bert, sizes["b"] - 1)}

    def mean(updates: Mapping[str, Adapter], units: int) -> Adapter:
        weights = {"a": 1.0, "b": float(units), "c": 5.0}
        return FedAvg(weights).aggregate(start, updates).adapter

    apart = (mean(came, sizes["b"]) - mean(without, sizes["b"] - 1)).norm()
    assert apart > 1.2 * RATE * BOUND / BATCH / len(SIZES)
