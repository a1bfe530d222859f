"""A site's optimizer state continues over stops and kills, and costs no privacy."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.client import personal
from cloister.client.round import answer
from cloister.client.site import Site
from cloister.errors import AdapterFormatError, RoundSpentError
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.protocol.exchange import RoundRequest
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from cloister.training.memory import memory_shapes
from tests.support.ledgers import odometer
from tests.support.studies import small_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(
        tmp_path / "study",
        "training.optimizer=adamw",
        "training.local_steps=1",
        "federation.num_rounds=3",
    )


def opened(recipe: Recipe, folder: Path) -> Site:
    run = RunDirectory.create(folder, recipe)
    begin_ledgers(prepare(recipe), run)
    return again(recipe, folder)


def again(recipe: Recipe, folder: Path) -> Site:
    """As another process opens the site."""
    context = Context(0, 0, {"partition-id": 0}, RecordDict(), {})
    return SimulatedSites(recipe, folder / "ledgers")(context)[0]


def ask(site: Site, recipe: Recipe, number: int) -> Adapter:
    workspace = workspace_of(prepare(recipe))
    request = RoundRequest(site.study, number, encode(workspace.whole))
    reply = answer(site, workspace, request, lambda: None)
    return decode(reply.delta, workspace.sent.shapes)


def steps_taken(site: Site, recipe: Recipe, number: int) -> float:
    """Steps that the optimizer remembers when a round begins."""
    assert site.optimizer is not None
    shapes = memory_shapes(recipe.training, workspace_of(prepare(recipe)).start.shapes)
    found = site.optimizer.before(number, shapes)
    if found is None:
        return 0.0
    return max(float(found[name][0]) for name in found if name.endswith(":step"))


def test_the_second_round_goes_on_where_the_first_ended(recipe: Recipe, tmp_path: Path) -> None:
    site = opened(recipe, tmp_path / "run")
    # A fresh AdamW's first step is the sign of the noise, of one size everywhere.
    assert signs(ask(site, recipe, 1))
    assert steps_taken(site, recipe, 2) == 1.0
    assert not signs(ask(again(recipe, tmp_path / "run"), recipe, 2))
    assert steps_taken(site, recipe, 3) == 2.0
    (folder,) = (tmp_path / "run" / "ledgers").glob("east.personal")
    assert all(path.stat().st_mode & 0o077 == 0 for path in [folder, *folder.iterdir()])


def signs(delta: Adapter) -> bool:
    sizes = np.concatenate([np.abs(array).ravel() for array in delta.values()])
    return bool(np.quantile(sizes, 0.05) > 0.98 * np.quantile(sizes, 0.95))


def test_asked_again_nothing_is_stepped(recipe: Recipe, tmp_path: Path) -> None:
    site = opened(recipe, tmp_path / "run")
    one = ask(site, recipe, 1)
    assert (ask(site, recipe, 1) - one).norm() == 0.0
    assert steps_taken(site, recipe, 2) == 1.0


@pytest.mark.parametrize("saved", [True, False])
def test_a_round_cut_off_is_spent_and_the_next_goes_on(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    """Cut off after the memory was written, or before: either is of charged sums alone."""
    site = opened(recipe, tmp_path / "run")
    ask(site, recipe, 1)
    broken = "cloister.client.round._encoded" if saved else "cloister.client.personal.write_whole"
    with monkeypatch.context() as patch:

        def cut_off(*_: object, **__: object) -> bytes:
            raise OSError("cut off")

        patch.setattr(broken, cut_off)
        with pytest.raises(RoundSpentError):
            ask(site, recipe, 2)
    with pytest.raises(RoundSpentError):  # never trained a second time
        ask(again(recipe, tmp_path / "run"), recipe, 2)
    assert steps_taken(site, recipe, 3) == (2.0 if saved else 1.0)
    ask(again(recipe, tmp_path / "run"), recipe, 3)
    assert steps_taken(site, recipe, 4) == (3.0 if saved else 2.0)


def test_it_is_written_after_the_charge_and_before_the_release(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = opened(recipe, tmp_path / "run")
    ledger = tmp_path / "run" / "ledgers" / "east.ledger"
    seen: list[list[str]] = []
    write = personal.write_whole

    def watched(path: Path, content: bytes, **options: int) -> None:
        seen.append([entry.fields["kind"] for entry in LedgerFile(ledger, None).entries()])
        write(path, content, **options)

    monkeypatch.setattr(personal, "write_whole", watched)
    ask(site, recipe, 1)
    kinds = [entry.fields["kind"] for entry in LedgerFile(ledger, None).entries()]
    assert seen == [kinds[:-1]]  # all but the release


def test_a_damaged_memory_is_found_before_anything_is_charged(
    recipe: Recipe, tmp_path: Path
) -> None:
    site = opened(recipe, tmp_path / "run")
    ask(site, recipe, 1)
    steps = Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps
    for file in (tmp_path / "run" / "ledgers" / "east.personal").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(AdapterFormatError):
        ask(site, recipe, 2)
    assert Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps == steps
    for file in (tmp_path / "run" / "ledgers" / "east.personal").iterdir():
        file.unlink()  # a lost one costs nothing
    ask(site, recipe, 2)


def test_it_costs_what_any_optimizer_costs(recipe: Recipe, tmp_path: Path) -> None:
    other = small_recipe(tmp_path / "study", "training.local_steps=1", "federation.num_rounds=3")
    sites = opened(recipe, tmp_path / "run"), opened(other, tmp_path / "other")
    for site, of in zip(sites, (recipe, other), strict=True):
        for number in (1, 2):
            ask(site, of, number)
    assert sites[1].optimizer is None
    spent = {odometer(site.ledger, site.plan.delta) for site in sites}
    assert len(spent) == 1
    assert 0 < spent.pop() < np.inf
